"""The address at which a worker answers `/metrics`, `/healthz` and `/readyz`."""

import socket
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Self

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.stream.worker.health import Health
from bartizan_connector.stream.worker.metrics import CONTENT_TYPE, Metrics

_PLAIN = "text/plain; charset=utf-8"
Answer = tuple[int, str, bytes]


class Endpoint:
    """Answers in threads of its own until it is closed."""

    def __init__(self, listen: str, metrics: Metrics, health: Health) -> None:
        host, _, port = listen.rpartition(":")
        host = host.strip("[]")
        if int(port) > 65_535:
            raise WrongUse(f"listen = '{listen}': a port is at most 65535")
        pages: dict[str, Callable[[], Answer]] = {
            "/metrics": lambda: (200, CONTENT_TYPE, metrics.page()),
            "/healthz": lambda: _verdict(health.dead()),
            "/readyz": lambda: _verdict(health.unready()),
        }
        try:
            self._server = _serving(host)((host, int(port)), _handling(pages))
        except OSError as error:
            raise WrongUse(f"cannot listen on {listen}: {error.strerror or error}; give another address") from error
        self._thread = Thread(target=self._server.serve_forever, name="bartizan-endpoint", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it answers; the port is the one that was found where 0 was asked for."""
        host, port = self._server.server_address[:2]
        shown = host.decode() if isinstance(host, bytes) else host
        return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _verdict(trouble: str | None) -> Answer:
    return (200, _PLAIN, b"ok\n") if trouble is None else (503, _PLAIN, f"{trouble}\n".encode())


def _serving(host: str) -> type[ThreadingHTTPServer]:
    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        daemon_threads = True
        block_on_close = False

    return Server


def _handling(pages: dict[str, Callable[[], Answer]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10.0

        def do_GET(self) -> None:
            page = pages.get(self.path.partition("?")[0])
            code, kind, body = page() if page else (404, _PLAIN, f"there are {', '.join(pages)}\n".encode())
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Scrapes are no news."""

    return Handler
