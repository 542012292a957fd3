"""The pages as a FastAPI application, mounted in Airflow's api-server.

Every route needs Airflow's log-in and its permission to see plugins; Airflow itself puts neither before a plugin's application.
Nothing here blocks the server's event loop: what reads the warehouse runs in `Reads`. What a caller names is looked up in the
view, and never becomes part of a path.
"""

from collections.abc import Awaitable, Callable, Collection
from datetime import date
from importlib.resources import files
from typing import Annotated

from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
from airflow.api_fastapi.core_api.security import requires_access_view
from fastapi import Depends, FastAPI, Query, Response
from pydantic import AfterValidator

from orchard.pages.batch_routes import add_batch
from orchard.pages.shown_view import SHOWN, STATES, BatchQuery
from orchard.pages.source import Source, not_found
from orchard.reporting.view import read_models

_TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
_MOST_ROWS = 500
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def create_app(source: Source) -> FastAPI:
    """Return the application."""
    permission = Depends(requires_access_view(AccessView.PLUGINS))
    app = FastAPI(title="Orchard", docs_url=None, redoc_url=None, openapi_url=None, dependencies=[permission])
    _add_files(app)
    _add_batches(app, source)
    add_batch(app, source)

    # Also what is not there needs the log-in.
    @app.api_route("/{path:path}", methods=_METHODS)
    async def refuse(path: str) -> None:
        raise not_found("page")

    return app


def _add_files(app: FastAPI) -> None:
    """Add the pages and their scripts: the files of the folder `static`, read once, each by its own name alone."""
    contents = {file.name: file.read_bytes() for file in files("orchard.pages").joinpath("static").iterdir()}
    for name, content in contents.items():
        app.add_api_route(f"/{name.removesuffix('.html')}", _answering(content, name), methods=["GET"])


def _answering(content: bytes, name: str) -> Callable[[], Awaitable[Response]]:
    async def answer() -> Response:
        return Response(content, media_type=_TYPES[name[name.rindex(".") :]])

    return answer


def _one_of(values: Collection[str]) -> AfterValidator:
    """Return what refuses a parameter that is none of some values."""

    def check(value: str) -> str:
        if value not in values:
            raise ValueError(f"is none of {', '.join(values)}")
        return value

    return AfterValidator(check)


def _add_batches(app: FastAPI, source: Source) -> None:
    @app.get("/api/batches")
    async def batches(
        state: Annotated[list[Annotated[str, _one_of(STATES)]], Query(default_factory=list)],
        text: Annotated[str, Query(max_length=100)] = "",
        first: date | None = None,
        last: date | None = None,
        sort: Annotated[str, _one_of(SHOWN)] = "batch_id",
        descending: bool = True,
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=_MOST_ROWS)] = 100,
    ) -> Response:
        query = BatchQuery(tuple(state), text, first, last, sort, descending, offset, limit)
        return await source.answer(lambda shown: shown.find_batches(query))

    @app.get("/api/models")
    async def models() -> Response:
        return await source.answer(lambda shown: read_models(source.view.warehouse, shown.pointer))

    @app.get("/api/calendar")
    async def calendar(year: Annotated[int | None, Query(ge=1, le=9999)] = None) -> Response:
        return await source.answer(lambda shown: shown.calendar(year))
