"""Who may see the pages, and what no visitor can do with them."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from orchard.pages import app as pages_app
from orchard.pages.headers import CONTENT_SECURITY_POLICY
from orchard.pages.plugin import PREFIX, OrchardPlugin
from orchard.pages.reads import Reads
from orchard.pages.source import Source
from orchard.settings import Settings
from support.logged_in import Visitor, migrate_database, token
from support.repository import ROOT

STATIC = Path(pages_app.__file__).parent / "static"
FILES = [f"/{path.name.removesuffix('.html')}" for path in STATIC.iterdir()]
LISTS = ["/api/batches", "/api/calendar", "/api/models"]
# Of one batch or image, which the empty warehouse has none of.
OF_BATCH = ["/api/batch", "/api/batch_of_run", "/api/images", "/api/quarantined"]
OF_IMAGE = ["/api/image/{digest}/{number}", "/thumbnails/{digest}/{number}"]
ADDRESSES = [*FILES, *LISTS, *OF_BATCH, *OF_IMAGE]


@pytest.fixture
def visitor(settings: Settings) -> Visitor:
    return Visitor.of(settings)


@pytest.mark.parametrize("address", [*ADDRESSES, "/", "/docs", "/openapi.json", "/nowhere", "/api/nowhere", "/../secret"])
def test_nothing_is_answered_without_a_log_in(visitor: Visitor, address: str) -> None:
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        answer = visitor.anonymous.request(method, address)
        assert answer.status_code == 401, method
        assert answer.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY


def test_every_route_is_among_the_addresses_that_are_tried(visitor: Visitor, settings: Settings) -> None:
    app = pages_app.create_app(Source(lambda: settings, Reads()))
    assert {getattr(route, "path", None) for route in app.routes} == {*ADDRESSES, "/{path:path}"}


@pytest.mark.parametrize("address", [*FILES, *LISTS])
def test_a_user_sees_what_is_there(visitor: Visitor, address: str) -> None:
    assert visitor.user.get(address).status_code == 200


def test_a_bearer_token_is_a_log_in_too(visitor: Visitor) -> None:
    answer = visitor.anonymous.get("/api/batches", headers={"Authorization": f"Bearer {token()}"})
    assert answer.status_code == 200
    assert visitor.anonymous.get("/api/batches", headers={"Authorization": "Bearer nonsense"}).status_code == 403


@pytest.mark.parametrize("address", [*ADDRESSES, "/nowhere"])
def test_the_permission_to_see_plugins_is_needed(visitor: Visitor, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import AccessView

    asked: list[AccessView] = []

    def refuse(access_view: AccessView, user: Any) -> bool:
        asked.append(access_view)
        return False

    token()
    monkeypatch.setattr(get_auth_manager(), "is_authorized_view", refuse)
    assert visitor.user.get(address).status_code == 403
    assert asked == [AccessView.PLUGINS]


def test_the_policy_is_the_one_that_was_decided() -> None:
    assert CONTENT_SECURITY_POLICY == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; worker-src 'self'; "
        "frame-ancestors 'self'; base-uri 'none'; form-action 'self'"
    )


@pytest.mark.parametrize("address", [*ADDRESSES, "/nowhere", "/api/batches?limit=0"])
def test_every_answer_carries_the_headers(visitor: Visitor, address: str) -> None:
    headers = visitor.user.get(address).headers
    assert headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == ("nosniff", "no-store")


@pytest.mark.parametrize("address", ADDRESSES)
def test_nothing_can_be_changed(visitor: Visitor, address: str) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert visitor.user.request(method, address).status_code in (404, 405)


@pytest.mark.parametrize(
    "name", ["../app.py", "..%2fapp.py", "%2e%2e/app.py", "static/style.css", "/etc/passwd", "style.css/../../app.py"]
)
def test_a_name_reaches_only_the_files_of_the_pages(visitor: Visitor, name: str) -> None:
    answer = visitor.user.get(f"/{name}")
    assert answer.status_code == 404
    assert answer.json() == {"detail": "There is no such page"}


@pytest.mark.parametrize(
    "query",
    [
        "sort=source",
        "sort=%27",
        "state=nothing",
        "limit=501",
        "limit=0",
        "offset=-1",
        "first=x",
        "last=2026-02-30",
        "text=" + "x" * 101,
    ],
)
def test_a_parameter_of_another_form_is_refused(visitor: Visitor, query: str) -> None:
    assert visitor.user.get(f"/api/batches?{query}").status_code == 422


def test_airflow_itself_mounts_the_pages_and_names_them_in_its_menu(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow import plugins_manager
    from airflow.api_fastapi.app import create_app

    migrate_database()
    monkeypatch.setenv("ORCHARD_WAREHOUSE", settings.warehouse)
    airflow = TestClient(create_app("core"))
    assert airflow.get(f"{PREFIX}/batches").status_code == 401
    airflow.cookies.set("_token", token())
    page = airflow.get(f"{PREFIX}/batches")
    assert (page.status_code, page.headers["Content-Security-Policy"]) == (200, CONTENT_SECURITY_POLICY)
    assert airflow.get(f"{PREFIX}/api/batches").json() == {"view": None}
    found = {plugin["name"]: plugin for plugin in airflow.get("/api/v2/plugins").json()["plugins"]}
    views = [(view["href"], view["category"], view["destination"]) for view in found["orchard"]["external_views"]]
    assert views == [(f"{PREFIX}/batches", "browse", "nav"), (f"{PREFIX}/batch?run_id={{RUN_ID}}", None, "dag_run")]
    assert plugins_manager.get_import_errors() == {}


def test_the_plugins_folder_registers_the_pages_where_no_package_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registered twice, the pages would be an import error in Airflow's UI."""
    registration = str(ROOT / "plugins" / "orchard_plugin.py")
    assert "OrchardPlugin" not in runpy.run_path(registration)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **wanted: ())
    assert runpy.run_path(registration)["OrchardPlugin"] is OrchardPlugin


def test_scripts_read_no_text_as_markup_and_ask_no_other_host() -> None:
    for path in STATIC.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "the name of SVG, which nobody asks for")
        for forbidden in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "://", "style="):
            assert forbidden not in text, f"{path.name} holds {forbidden}"
        assert "<script>" not in text
        assert " on" + "click=" not in text
