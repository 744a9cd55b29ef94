"""Runs the demo with a gateway that is scripted. `run_demo.py FOLDER BEHAVIOUR [option …]`; run as a script."""

from __future__ import annotations

import sys
from pathlib import Path

from loadgen._demo._load import LoadShape
from loadgen._demo._main import Places, main

folder, behaviour = Path(sys.argv[1]), sys.argv[2]
script = Path(__file__).with_name("scripted_up.py")
places = Places(
    config=folder / "demo.yaml",
    runs=folder / "runs",
    up=lambda config: [sys.executable, str(script), str(config), behaviour],
    shape=LoadShape(requests=12, warm_up_s=0.0),
)
sys.exit(main(sys.argv[3:], places=places))
