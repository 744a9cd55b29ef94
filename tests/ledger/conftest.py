"""Databases for the ledger: a file, and a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ledger.postgresql import PostgresqlServer, find_programs


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """One server for all tests; each takes a database of its own."""
    programs = find_programs()
    if programs is None:
        pytest.skip("There is no PostgreSQL: apt-get install postgresql")
    server = PostgresqlServer(programs)
    try:
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str | None:
    """A database's URL; None: the default, a file in the state folder."""
    if request.param == "sqlite":
        return None
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    return server.new_database()
