"""`python -m quant`."""

from __future__ import annotations

import sys

from quant.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
