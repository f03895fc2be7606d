"""`/livez`, `/readyz` and `/metrics` over HTTP, from a thread of its own."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from contract.ports import serve_on_free_port

Probe = Callable[[], str | None]  # None: healthy; otherwise what is wrong, as a sentence


class HealthServer:
    """Serves probes and metrics on `port`, or the next free one, until closed (0: any); raises `BadConfig`."""

    def __init__(self, *, port: int, live: Probe, ready: Probe, metrics: Callable[[], bytes]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                match self.path:
                    case "/livez":
                        self.answer_probe(live())
                    case "/readyz":
                        self.answer_probe(ready())
                    case "/metrics":
                        self.answer(200, metrics())
                    case _:
                        self.answer(404, b"Paths: /livez, /readyz, /metrics.\n")

            def answer_probe(self, problem: str | None) -> None:
                self.answer(503 if problem else 200, f"{problem or 'ok'}\n".encode())

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """No log: probes come every few seconds."""

        self._server = serve_on_free_port(
            "worker.http_port", port, lambda number: ThreadingHTTPServer(("", number), Handler)
        )
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
