"""A small server on loopback that answers /v1/chat/completions as it is told."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answer:
    content: str | None = None
    """What the model writes."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """Instead of a chat completion."""
    seconds: float = 0.0
    """Before it answers."""
    finish_reason: str = "stop"
    tokens: tuple[int, int] | None = (100, 10)


@dataclass
class JudgeServer:
    url: str = ""
    requests: list[dict] = field(default_factory=list)
    headers: list[dict] = field(default_factory=list)

    def texts(self) -> list[str]:
        return [request["messages"][-1]["content"] for request in self.requests]


@contextmanager
def serve(think: Callable[[dict, int], Answer]) -> Iterator[JudgeServer]:
    """Serve what ``think`` makes of a request and of its place among all, from 0."""
    state, lock = JudgeServer(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                place = len(state.requests)
                state.requests.append(body)
                state.headers.append({k.lower(): v for k, v in self.headers.items()})
            known = self.path == "/v1/chat/completions"
            answer = think(body, place) if known else Answer(status=404)
            time.sleep(answer.seconds)
            payload = _completion(answer) if answer.body is None else answer.body
            self.send_response(answer.status)
            for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_):  # a client that hung up
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


def _completion(answer: Answer) -> bytes:
    message = {"role": "assistant", "content": answer.content}
    choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason}
    completion = {"id": "1", "object": "chat.completion", "created": 0, "model": "judge"}
    completion |= {"choices": [choice]}
    if answer.tokens:
        prompt, written = answer.tokens
        completion["usage"] = {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
        }
    return json.dumps(completion).encode()
