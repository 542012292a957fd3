"""A plugin of the embedded Airflow, whose database is SQLite: its api-server handles one writing request at a time.

SQLite has one writer, and Airflow's audit log commits on the event loop. While another request holds the lock, the loop waits for
it, and the request waits for the loop. Without this plugin, both hang until SQLite's time-out of 120 s.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow.plugins_manager import AirflowPlugin

Message = MutableMapping[str, Any]
_READING = {"GET", "HEAD", "OPTIONS"}


class OneWriteAtATime:
    """An ASGI middleware: a request that may write waits until the one before it has committed."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app, self._turn = app, asyncio.Lock()

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Handle one request, or whatever else a server tells its application."""
        if scope["type"] != "http" or scope["method"] in _READING:
            return await self._app(scope, receive, send)
        async with self._turn:
            await self._app(scope, receive, send)


class SandboxPlugin(AirflowPlugin):
    """What the embedded stack adds to Airflow."""

    name = "orchard_sandbox"
    fastapi_root_middlewares = [{"middleware": OneWriteAtATime, "args": [], "kwargs": {}, "name": "one write at a time"}]
