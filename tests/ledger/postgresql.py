"""A PostgreSQL server of one's own, on a Unix socket, that may be stopped and started again."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg

__all__ = ["PostgresqlServer", "find_programs"]

_BOUND_S = 60


def find_programs() -> Path | None:
    """The folder with initdb and postgres; Debian keeps it out of the path."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


class PostgresqlServer:
    """In a folder of its own; initdb refuses to run as root, so then somebody else runs it."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="wg-pg-", dir="/tmp"))  # the path of a socket is short
        self._user = "nobody" if os.getuid() == 0 else None
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        self._data = self.folder / "data"
        self._names = itertools.count(1)
        self._run("initdb", "-D", str(self._data), "-U", "wattgate", "-A", "trust", "-E", "UTF8", "--no-sync")

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off -c shared_buffers=32MB"
        log = self.folder / "log"
        self._run("pg_ctl", "-D", str(self._data), "-w", "-t", str(_BOUND_S), "-l", str(log), "-o", options, "start")

    def stop(self) -> None:
        """At once, as a crash would."""
        self._run("pg_ctl", "-D", str(self._data), "-w", "-t", str(_BOUND_S), "-m", "immediate", "stop")

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def new_database(self) -> str:
        """Its URL."""
        name = f"ledger{next(self._names)}"
        with psycopg.connect(host=str(self.folder), user="wattgate", dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://wattgate@/{name}?host={self.folder}"

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments],
            user=self._user,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # a pipe would be inherited by the server, and never end
            stderr=subprocess.STDOUT,
            timeout=_BOUND_S,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program} {' '.join(arguments)}: exit status {done.returncode}")
