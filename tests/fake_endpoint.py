"""An OpenAI-compatible endpoint on this machine that answers as a test says; loaded by path: tests are no package."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Turn = Callable[[BaseHTTPRequestHandler], None]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that went away is what some tests want."""


class FakeEndpoint:
    """Serves `script`, a turn a request, then `say(question)` for ever; as a context manager it stops its threads.

    asked: the JSON of every request · headers: those that came with it.
    """

    def __init__(self, say: Callable[[str], str] = lambda question: "[10, 20, 30, 40]") -> None:
        self.say, self.script = say, list[Turn]()
        self.asked, self.headers = list[dict[str, Any]](), list[dict[str, str]]()
        self.over = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                fake.headers.append(dict(self.headers))
                fake.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                turn = fake.script.pop(0) if fake.script else says(fake.say(fake.questions[-1]))
                turn(self)

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> FakeEndpoint:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def questions(self) -> list[str]:
        """The text of every request."""
        return [request["messages"][0]["content"][1]["text"] for request in self.asked]

    def hangs(self, handler: BaseHTTPRequestHandler) -> None:
        """A turn without an answer, until the server is stopped."""
        self.over.wait()


def says(text: Any, **choice: Any) -> Turn:
    """A turn that answers with a chat completion."""
    completion = {
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop", **choice}],
        "usage": {"prompt_tokens": 700, "completion_tokens": 9},
    }
    return sends(200, json.dumps(completion))


def sends(status: int, body: str = "", **headers: str) -> Turn:
    """A turn with this status, body and headers (Retry_After for Retry-After)."""

    def turn(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        content = body.encode()
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return turn


def drops(handler: BaseHTTPRequestHandler) -> None:
    """A turn that breaks the connection off."""
    handler.connection.close()
    handler.close_connection = True
