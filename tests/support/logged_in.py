"""Airflow's database and log-in in this process, and the pages behind them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from fastapi.testclient import TestClient
from orchard.pages.app import create_app
from orchard.pages.headers import WithHeaders
from orchard.pages.reads import Reads
from orchard.pages.source import Source
from orchard.settings import Settings


@cache
def migrate_database() -> None:
    """Migrate Airflow's database, once a process."""
    from airflow import settings
    from airflow.utils import db

    settings.initialize()
    db.initdb()


@cache
def token(role: str = "viewer") -> str:
    """Return what the UI keeps as its cookie once a user of a role has logged in."""
    from airflow.api_fastapi.app import init_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    migrate_database()
    made: str = init_auth_manager().generate_jwt(SimpleAuthManagerUser(username=role, role=role))
    return made


@dataclass(frozen=True)
class Visitor:
    """A browser at the pages of one warehouse.

    Attributes:
        anonymous: without a log-in.
        user: logged in, with the UI's cookie.
    """

    anonymous: TestClient
    user: TestClient

    @classmethod
    def of(cls, settings: Settings, reads: Reads | None = None) -> "Visitor":
        """Return a visitor of the pages that some settings give."""
        app: Callable[..., Any] = WithHeaders(create_app(Source(lambda: settings, reads or Reads())))
        return cls(TestClient(app), TestClient(app, cookies={"_token": token()}))
