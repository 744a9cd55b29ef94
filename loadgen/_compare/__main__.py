"""`python -m loadgen._compare PLAN.yaml`."""

from __future__ import annotations

import signal
import sys

from loadgen._compare import main

if __name__ == "__main__":
    # Until compare takes the signals itself: a Ctrl-C while modules load ends it without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main(sys.argv[1:]))
