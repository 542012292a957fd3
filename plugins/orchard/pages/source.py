"""Where the pages read, and how an answer is made of it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, TypeVar

from fastapi import HTTPException, Response, status
from orchard_jobs.errors import OrchardError
from orchard_jobs.escaping import escaping_logger
from orchard_jobs.storage import Warehouse

from orchard.pages.reads import Reads
from orchard.pages.shown_view import ShownView, ViewReader
from orchard.pages.thumbnails import Pictures
from orchard.settings import Settings

T = TypeVar("T")
log = escaping_logger(__name__)


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

    @cached_property
    def pictures(self) -> Pictures:
        """The images of the landing zone."""
        return Pictures(self.read_settings())

    async def read(self, read: Callable[[], T]) -> T:
        """Return what a function reads.

        Raises:
            HTTPException: 503 when the warehouse cannot be read, or the reads before this one take too long.
        """
        return await self.reads.run(lambda: _explained(read))

    async def answer(self, of_view: Callable[[ShownView], dict[str, Any]]) -> Response:
        """Answer with what a function makes of the newest view, and `view`, which says how old that is; null where there is none.

        Raises:
            HTTPException: as `read`, and what the function raises.
        """

        def read() -> str:
            shown = self.view.newest()
            found = {"view": None} if shown is None else {"view": shown.told(datetime.now(UTC)), **of_view(shown)}
            return json.dumps(found, default=lambda moment: moment.isoformat())

        return Response(await self.read(read), media_type="application/json")


def not_found(what: str) -> HTTPException:
    """Return the error that something is not there."""
    return HTTPException(status.HTTP_404_NOT_FOUND, f"There is no such {what}")


def _explained(read: Callable[[], T]) -> T:
    try:
        return read()
    except OrchardError as error:
        log.warning("a page cannot be shown: %s", error)
        raise HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE, str(error)) from error
