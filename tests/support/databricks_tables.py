"""Unity Catalog's tables at their HTTP boundary: what databricks-sdk sends is what is kept and answered.

One catalog with one schema. What is sent must fit the SDK's own dataclasses with no key left over; they make the answers, too.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from databricks.sdk.service.catalog import CatalogInfo, DataSourceFormat, SchemaInfo, TableInfo, TableType

from support.databricks_files import TOKEN

CATALOG, SCHEMA = "main", "ml"
_API = "/api/2.1/unity-catalog"


@dataclass
class UnityServer:
    """What the catalog holds: tables by full name, and the number of those that were created.

    `failures` are answered first: (status, error code), one a request.
    """

    catalog: CatalogInfo = field(default_factory=lambda: CatalogInfo(name=CATALOG))
    schema: SchemaInfo = field(
        default_factory=lambda: SchemaInfo(name=SCHEMA, catalog_name=CATALOG, full_name=f"{CATALOG}.{SCHEMA}")
    )
    tables: dict[str, TableInfo] = field(default_factory=dict)
    created: int = 0
    failures: list[tuple[int, str]] = field(default_factory=list)
    address: str = ""

    def found(self, path: str) -> CatalogInfo | SchemaInfo | TableInfo | None:
        """Return what a path of the API names, or None."""
        named: dict[str, CatalogInfo | SchemaInfo | TableInfo] = {
            f"{_API}/catalogs/{CATALOG}": self.catalog,
            f"{_API}/schemas/{CATALOG}.{SCHEMA}": self.schema,
        }
        return (named | {f"{_API}/tables/{name}": table for name, table in self.tables.items()}).get(path)


class _Handler(BaseHTTPRequestHandler):
    @property
    def unity(self) -> UnityServer:
        assert isinstance(self.server, _Server)
        return self.server.unity

    def do_GET(self) -> None:
        if self._is_let_in():
            path = unquote(urlsplit(self.path).path)
            found = self.unity.found(path)
            if found is None:
                self.fail(404, "NOT_FOUND", f"{path.removeprefix(_API)} does not exist")
            else:
                self.send_json(200, found.as_dict())

    def do_POST(self) -> None:
        sent = json.loads(self.body())
        if not self._is_let_in():
            return
        table = TableInfo.from_dict(sent)
        full_name = f"{table.catalog_name}.{table.schema_name}.{table.name}"
        is_external_delta = (table.table_type, table.data_source_format) == (TableType.EXTERNAL, DataSourceFormat.DELTA)
        if self.path != f"{_API}/tables" or table.as_dict() != sent or not is_external_delta:
            self.fail(400, "INVALID_PARAMETER_VALUE", f"not to be made: {sent}")
        elif full_name in self.unity.tables:
            self.fail(409, "TABLE_ALREADY_EXISTS", f"{full_name} is there")
        else:
            self.unity.tables[full_name] = replace(table, full_name=full_name)
            self.unity.created += 1
            self.send_json(200, self.unity.tables[full_name].as_dict())

    def body(self) -> bytes:
        """Read what was sent."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def fail(self, status: int, code: str, message: str) -> None:
        """Answer with an error as Databricks words it."""
        self.send_json(status, {"error_code": code, "message": message})

    def send_json(self, status: int, found: dict[str, object]) -> None:
        """Answer in JSON."""
        self.send(status, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Answer."""
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _is_let_in(self) -> bool:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.fail(401, "UNAUTHENTICATED", "Credential was not sent or was of an unsupported type for this API.")
        elif self.unity.failures:
            self.fail(*self.unity.failures.pop(0), "as the test wants")
        else:
            return True
        return False


class _Server(ThreadingHTTPServer):
    def __init__(self, unity: UnityServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.unity = unity


@contextmanager
def serve_unity() -> Iterator[UnityServer]:
    """Serve an empty schema on loopback."""
    unity = UnityServer()
    server = _Server(unity)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    unity.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield unity
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
