"""The pages as a FastAPI application, mounted in Airflow's api-server.

Every route needs Airflow's log-in and its permission to see plugins; Airflow itself puts neither before a plugin's application.
Nothing here blocks the server's event loop: what reads the warehouse runs in `Reads`. What a caller names is looked up in the
view, and never becomes part of a path.
"""

import json
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from importlib.resources import files
from typing import Annotated, Any, TypeVar

from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
from airflow.api_fastapi.core_api.security import requires_access_view
from fastapi import Depends, FastAPI, HTTPException, Query, Response, status
from orchard_jobs.errors import OrchardError
from orchard_jobs.escaping import escaping_logger
from orchard_jobs.storage import Warehouse
from pydantic import AfterValidator

from orchard.pages.reads import Reads
from orchard.pages.shown_view import SHOWN, STATES, BatchQuery, ShownView, ViewReader
from orchard.settings import Settings

T = TypeVar("T")
log = escaping_logger(__name__)
_TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
_MOST_ROWS = 500
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@dataclass(frozen=True)
class Source:
    """Where the pages read.

    Attributes:
        read_settings: reads the settings, when the first page is shown: a wrong one must not keep Airflow from starting.
        reads: where reads run.
    """

    read_settings: Callable[[], Settings]
    reads: Reads

    @cached_property
    def view(self) -> ViewReader:
        """The newest view."""
        return ViewReader(Warehouse.at(self.read_settings().warehouse))

    async def answer(self, of_view: Callable[[ShownView], dict[str, Any]]) -> Response:
        """Answer with what a function makes of the newest view, and `view`, which says how old that is; null where there is none.

        Raises:
            HTTPException: 503 when the warehouse cannot be read, or the reads before this one take too long.
        """

        def read() -> str:
            shown = self.view.newest()
            found = {"view": None} if shown is None else {"view": shown.told(datetime.now(UTC)), **of_view(shown)}
            return json.dumps(found, default=datetime.isoformat)

        return Response(await self.reads.run(lambda: _explained(read)), media_type="application/json")


def _explained(read: Callable[[], T]) -> T:
    try:
        return read()
    except OrchardError as error:
        log.warning("a page cannot be shown: %s", error)
        raise HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE, str(error)) from error


def create_app(source: Source) -> FastAPI:
    """Return the application."""
    permission = Depends(requires_access_view(AccessView.PLUGINS))
    app = FastAPI(title="Orchard", docs_url=None, redoc_url=None, openapi_url=None, dependencies=[permission])
    _add_files(app)
    _add_batches(app, source)

    # Also what is not there needs the log-in.
    @app.api_route("/{path:path}", methods=_METHODS)
    async def refuse(path: str) -> None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "There is no such page")

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

    @app.get("/api/calendar")
    async def calendar(year: Annotated[int | None, Query(ge=1, le=9999)] = None) -> Response:
        return await source.answer(lambda shown: shown.calendar(year))
