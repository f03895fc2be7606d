"""A schema registry in this process that keeps Avro schemas: the requests that confluent-kafka's client makes of one.

Its own mock (`mock://`) lives in one process, and the tutorial has several.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

NOT_FOUND = {"error_code": 40403, "message": "Not found"}


class SchemaHandler(BaseHTTPRequestHandler):
    """Registers schemas under any subject, and gives them back by their id."""

    server: "SchemaRegistry"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        schemas = self.server.schemas
        if body["schema"] not in schemas:
            schemas.append(body["schema"])
        self._reply(200, {"id": schemas.index(body["schema"]) + 1, "version": 1, "schema": body["schema"]})

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        schema_id = path.removeprefix("/schemas/ids/")
        if path == "/subjects":
            self._reply(200, [])
        elif schema_id.isdecimal() and int(schema_id) <= len(self.server.schemas):
            self._reply(200, {"schema": self.server.schemas[int(schema_id) - 1]})
        else:
            self._reply(404, NOT_FOUND)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _reply(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class SchemaRegistry(ThreadingHTTPServer):
    """Listens on a free loopback port."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), SchemaHandler)
        self.schemas: list[str] = []

    @property
    def url(self) -> str:
        """The value for `registry.url`."""
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def open_schema_registry() -> Iterator[SchemaRegistry]:
    with SchemaRegistry() as registry:
        thread = Thread(target=registry.serve_forever)
        thread.start()
        try:
            yield registry
        finally:
            registry.shutdown()
            thread.join()
