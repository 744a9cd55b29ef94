"""A stand-in for a plane: tells its pid to whoever connects; `control` also leaves a daemon behind."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role")
    parser.add_argument("--listen-fd", type=int)
    parser.add_argument("--bus-fd", type=int)
    parser.add_argument("--slot")
    parser.add_argument("--launcher-pid", type=int)
    parser.add_argument("--exit-with", type=int)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if arguments.exit_with is not None:
        sys.exit(arguments.exit_with)
    if arguments.role == "control":
        leave_a_daemon()
    listener = socket.socket(fileno=arguments.listen_fd)
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(f"{os.getpid()}".encode())


def leave_a_daemon() -> None:
    """A process in a session of its own whose parent has gone."""
    code = "import os, time\nif os.fork(): os._exit(0)\nos.setsid(); time.sleep(600)"
    subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    main()
