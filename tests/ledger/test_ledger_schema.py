"""The ledger's migrations lead to the tables that the program expects."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

import server.ledger.migrations
from server.accounts import RecordKey
from server.config import LedgerSettings
from server.errors import StartError
from server.ledger.database import Database
from server.ledger.schema import REVISION, prepare
from server.ledger.tables import METADATA
from tests.fakes.batches import record, worker
from tests.ledger.plane import RATES, energy_of, posting, running


def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(Path(server.ledger.migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config)


REVISIONS = [script.revision for script in scripts().walk_revisions()]


@pytest.fixture
def database(tmp_path: Path, url: str | None) -> Database:
    return Database(LedgerSettings(url=url), tmp_path)


@pytest.fixture
def engine(database: Database) -> Engine:
    return database.writer()


def test_newest_revision_is_the_one_that_the_program_looks_for() -> None:
    assert scripts().get_heads() == [REVISION]


def test_all_revisions_together_make_the_tables(database: Database, engine: Engine) -> None:
    with engine.begin() as connection:
        prepare(connection)
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
    with engine.begin() as connection:
        prepare(connection)  # again: nothing to do
    database.close()


def test_failed_migration_leaves_the_database_as_it_was(database: Database, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE energies (mine INTEGER)")  # in the way of the migration
    with pytest.raises(Exception, match="energies"), engine.begin() as connection:
        prepare(connection)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE energies")
        prepare(connection)
    database.close()


def test_newer_database_is_refused_with_what_to_do(database: Database, engine: Engine) -> None:
    with engine.begin() as connection:
        prepare(connection)
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'from the future'")
    with pytest.raises(StartError, match="use the newer Wattgate"), engine.begin() as connection:
        prepare(connection)
    database.close()


@pytest.mark.anyio
@pytest.mark.parametrize("revision", REVISIONS)
async def test_ledger_of_any_earlier_revision_is_brought_up_to_date(
    tmp_path: Path, url: str | None, revision: str
) -> None:
    database = Database(LedgerSettings(url=url), tmp_path)
    with database.writer().begin() as connection:
        prepare(connection, revision=revision)
    database.close()
    async with running(tmp_path, url) as plane:
        plane.take(worker("boot-a"), 1, [record()])
        plane.post([energy_of(RecordKey("boot-a", 1, 0))], {posting(): 3}, RATES)
        await plane.written()
        assert len(plane.ledger.queries.request("r1")) == 1
        assert plane.rows("SELECT version_num FROM alembic_version") == [(REVISION,)]
