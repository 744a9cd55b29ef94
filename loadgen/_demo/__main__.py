"""`python -m loadgen._demo`."""

from __future__ import annotations

import signal
import sys

from loadgen._demo import main

if __name__ == "__main__":
    # Until the demo takes the signals itself: a Ctrl-C while modules load ends it without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main(sys.argv[1:]))
