"""Servers that are not what they should be, and a client that is killed between two calls."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from mlflow import MlflowClient

LOGIN = b"<html><body>Please sign in.</body></html>"
SLOW_SECONDS = 3


class Killed(BaseException):
    """What a process would have met as SIGKILL."""


class KilledClient(MlflowClient):
    """Makes so many calls, and is killed before the next one."""

    def __init__(self, tracking_uri: str, *, calls: int) -> None:
        super().__init__(tracking_uri)
        self._left = calls

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name.startswith("_") or not callable(found):
            return found

        def call(*arguments, **options):
            if self._left == 0:
                raise Killed(name)
            self._left -= 1
            return found(*arguments, **options)

        return call


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        code, kind, body = self.server.answer_to(self.path)
        self.send_response(code)
        if 300 <= code < 400:
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/login?id=7")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(BrokenPipeError):  # whoever asked did not wait
            self.wfile.write(body)

    do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815

    def log_message(self, *_):
        pass


def failing(path):
    """A server whose database is gone."""
    return (200, "text/html", b"OK") if path == "/health" else (500, "text/html", b"oops")


def logging_in(_):
    return 200, "text/html", LOGIN


def redirecting(_):
    return 302, "text/html", b""


def empty(_):
    return 200, "application/json", b"{}"


def missing(_):
    return 404, "text/html", b"no such page"


def slow(path):
    if path != "/health":
        time.sleep(SLOW_SECONDS)
    return 200, "application/json", b"{}"


@contextmanager
def serving(answer_to) -> Iterator[str]:
    """A server with these answers; its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads, server.answer_to = True, answer_to
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://somebody:hunter22@127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
