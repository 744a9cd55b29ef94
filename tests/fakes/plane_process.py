"""A stand-in for a plane: tells its pid to whoever connects; `control` also leaves a daemon behind.

Where `--broken FILE` names a file that exists, it ends before it serves.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role")
    parser.add_argument("--listen-fd", type=int, action="append")
    parser.add_argument("--ready-fd", type=int)
    parser.add_argument("--bus-fd", type=int)
    parser.add_argument("--slot")
    parser.add_argument("--launcher-pid", type=int)
    parser.add_argument("--exit-with", type=int)
    parser.add_argument("--broken")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: os._exit(0))
    if arguments.exit_with is not None:
        sys.exit(arguments.exit_with)
    if arguments.broken is not None and os.path.exists(arguments.broken):  # noqa: PTH110
        sys.exit(1)
    if arguments.role == "control":
        leave_a_daemon()
    listeners = [socket.socket(fileno=descriptor) for descriptor in arguments.listen_fd]
    for listener in listeners:
        listener.listen(128)
    os.write(arguments.ready_fd, b"!")
    while True:
        for listener in select.select(listeners, [], [])[0]:
            listener.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(f"{os.getpid()}".encode())


def leave_a_daemon() -> None:
    """A process in a session of its own whose parent has gone."""
    code = "import os, time\nif os.fork(): os._exit(0)\nos.setsid(); time.sleep(600)"
    subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    main()
