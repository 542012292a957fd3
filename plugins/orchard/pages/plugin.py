"""The plugin by which Airflow finds the pages. Every process of Airflow loads it, so the application is made on demand."""

from collections.abc import Awaitable, Callable, MutableMapping
from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin

PREFIX = "/orchard"
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class PagesOnDemand:
    """The pages as an ASGI application, which is made when it is first asked."""

    @cached_property
    def _app(self) -> Callable[[Message, Receive, Send], Awaitable[None]]:
        from orchard.pages.app import create_app
        from orchard.pages.headers import WithHeaders
        from orchard.pages.reads import Reads
        from orchard.pages.source import Source
        from orchard.settings import Settings

        return WithHeaders(create_app(Source(Settings.from_environment, Reads())))

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one request."""
        await self._app(scope, receive, send)


class OrchardPlugin(AirflowPlugin):
    """Orchard's pages: the application, and the entries that show it in a frame: Browse > Orchard, and a tab of each run."""

    name = "orchard"
    fastapi_apps = [{"app": PagesOnDemand(), "url_prefix": PREFIX, "name": "Orchard"}]
    external_views = [
        {"name": "Orchard", "href": "/orchard/batches", "destination": "nav", "category": "browse", "url_route": "orchard"},
        {
            "name": "Orchard batch",
            "href": "/orchard/batch?run_id={RUN_ID}",
            "destination": "dag_run",
            "url_route": "orchard-batch",
        },
    ]
