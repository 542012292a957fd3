"""One metadata database for all tests of DAG runs."""

import pytest


@pytest.fixture(scope="session")
def metadata_database() -> None:
    """Airflow's database, migrated, with its default pools."""
    from airflow import settings
    from airflow.utils import db

    settings.initialize()
    db.initdb()
