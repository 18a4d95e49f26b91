"""Notifications, sent to a real server."""

import json
import logging
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import SecretStr

from rpo_pipeline.operations.notify import notify
from rpo_pipeline.params import NotificationParams

MESSAGE = {"event": "promoted", "text": "version 7 is champion", "version": "7"}
DRIP = "one byte every tenth of a second"
SECRET = "a-token-that-nobody-may-see"


@pytest.fixture
def server():
    """Answers with the next of its ``statuses`` (None: hangs up), and keeps what it was sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.received.append((self.path, json.loads(body)))
            status = self.server.statuses.pop(0) if self.server.statuses else 200
            if status == DRIP:
                with suppress(OSError):
                    for _ in range(40):
                        self.wfile.write(b"H")
                        time.sleep(0.1)
            elif status is not None:
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

        def do_GET(self):
            self.server.received.append((self.path, None))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.statuses, server.received = [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def tell(server, tmp_path):
    def tell(message=MESSAGE, events=("promoted",), address=None, timeout_seconds=5):
        settings = NotificationParams(
            events=list(events), attempts=3, pause_seconds=0.01, timeout_seconds=timeout_seconds
        )
        address = address or f"http://127.0.0.1:{server.server_port}/{SECRET}"
        file = tmp_path / "notifications.jsonl"
        notify(message, settings, webhook=SecretStr(address), file=file)
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    return tell


def test_a_webhook_that_fails_twice_is_told_at_the_third_attempt(server, tell):
    server.statuses = [503, None]
    (kept,) = tell()
    assert kept["delivered"] is True
    assert kept["problem"] is None
    assert [path for path, _ in server.received] == [f"/{SECRET}"] * 3
    assert server.received[-1][1] == {"at": kept["at"], **MESSAGE}


def test_what_cannot_be_delivered_is_said_and_kept_without_the_address(server, tell, caplog):
    caplog.set_level(logging.DEBUG)
    server.statuses = [500, 429, 500]
    tell()
    unreachable = f"http://127.0.0.1:1/{SECRET}"
    kept = [*tell(address=unreachable), *tell(address=f"ftp://{SECRET}")]
    assert [line["delivered"] for line in kept[-3:]] == [False, False, False]
    assert "answered with status 500" in kept[-3]["problem"]
    assert "ConnectionRefusedError" in kept[-2]["problem"]
    assert caplog.text.count("the notification 'promoted' was not delivered") == 3
    assert SECRET not in caplog.text + json.dumps(kept)


def test_a_refusal_is_not_tried_again(server, tell):
    server.statuses = [404, 200]
    (kept,) = tell()
    assert kept["delivered"] is False
    assert len(server.received) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 304])
def test_a_redirect_is_not_followed_and_is_no_delivery(server, tell, status):
    server.statuses = [status]
    (kept,) = tell()
    assert kept["delivered"] is False
    assert f"answered with status {status}" in kept["problem"]
    assert [path for path, _ in server.received] == [f"/{SECRET}"]


def test_an_answer_that_drips_is_given_up_after_the_timeout_in_all(server, tell):
    server.statuses = [DRIP, DRIP, DRIP]
    started = time.monotonic()
    (kept,) = tell(timeout_seconds=0.3)
    assert kept["delivered"] is False
    assert "TimeoutError" in kept["problem"]
    assert time.monotonic() - started < 3


def test_only_events_that_were_asked_for_are_told(server, tell):
    assert tell(events=["failed"]) == []
    assert server.received == []


def test_passwords_inside_addresses_are_taken_out_of_the_text(server, tell):
    tell({**MESSAGE, "text": "http://me:secret@host:5000 does not answer"})
    assert server.received[0][1]["text"] == "http://***@host:5000 does not answer"


def test_a_file_that_cannot_be_written_fails_nothing(tmp_path, caplog):
    settings = NotificationParams(
        events=["promoted"], attempts=1, pause_seconds=0, timeout_seconds=1
    )
    notify(MESSAGE, settings, webhook=None, file=tmp_path)
    assert "could not be kept" in caplog.text
