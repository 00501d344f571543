"""A slurmrestd that answers with what it is given: for API versions that no daemon here speaks, and for old habits."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Slurmrestd:
    """`answers` by method and path, as (status, body); a body that is text goes out as text/plain."""

    answers: Mapping[str, tuple[int, Any]]
    url: str = ""
    asked: list[tuple[str, str, Any]] = field(default_factory=list)  # method and path, token, body


@contextmanager
def answering(answers: Mapping[str, tuple[int, Any]]) -> Iterator[Slurmrestd]:
    """Answer until the end of the block."""
    daemon = Slurmrestd(answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            asked = f"{self.command} {self.path}"
            daemon.asked.append((asked, self.headers["X-SLURM-USER-TOKEN"], body))
            status, said = daemon.answers.get(asked.partition("?")[0], (404, "Unable find requested URL."))
            content = said.encode() if isinstance(said, str) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(said, str) else "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - the library's names

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    daemon.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield daemon
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
