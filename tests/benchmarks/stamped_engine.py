"""An engine whose chunks say when they were sent: nginx with lua."""

from __future__ import annotations

from pathlib import Path
from string import Template

import psutil

from tests.benchmarks import processes
from tests.benchmarks.mock_engine import OPEN_FILES

__all__ = ["model_with_pace", "start_stamped_engine"]

_HERE = Path(__file__).parent


def model_with_pace(milliseconds: int) -> str:
    """The model whose chunks come so far apart; 0 and 20 are listed."""
    return f"pace-{milliseconds}"


def start_stamped_engine(folder: Path, *, port: int, core: int | None) -> psutil.Popen:
    """Start it on a port of the loopback; needs nginx and its lua module, as the mock engine does."""
    folder.mkdir(parents=True, exist_ok=True)
    text = Template((_HERE / "stamped_engine.conf").read_text("utf-8"))
    written = folder / "nginx.conf"
    written.write_text(text.safe_substitute(folder=folder, here=_HERE, port=port, open_files=OPEN_FILES), "utf-8")
    argv = ["nginx", "-c", str(written), "-e", str(folder / "error.log")]
    return processes.start(argv, core=core, log=folder / "nginx.log")
