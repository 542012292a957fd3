"""One metadata database for all tests of DAG runs."""

import pytest
from support.logged_in import migrate_database


@pytest.fixture(scope="session")
def metadata_database() -> None:
    """Airflow's database, migrated, with its default pools."""
    migrate_database()
