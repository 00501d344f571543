"""Stands between Watteau and a slurmrestd, and can be told to fail as those do: 500, a hang, a closed door."""

import contextlib
import socket
import threading
from enum import StrEnum


class Mood(StrEnum):
    """How the proxy treats who calls."""

    PASS = "pass"
    ERROR = "500"
    HANG = "hang"
    CUT = "cut"  # passes the request on, and closes before the answer


class Proxy:
    """Forwards connections to a port of this machine; a change of mood closes those that are open.

    `requests` holds the first line of each request that was passed on.
    """

    def __init__(self, to_port: int) -> None:
        self._to = ("127.0.0.1", to_port)
        self._mood = Mood.PASS
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.requests: list[str] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def be(self, mood: Mood) -> None:
        """From now on."""
        with self._lock:
            self._mood = mood
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.be(Mood.PASS)
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(caller,), daemon=True).start()

    def _serve(self, caller: socket.socket) -> None:
        with caller, contextlib.suppress(OSError):
            with self._lock:
                mood = self._mood
                self._open.add(caller)
            try:
                if mood is Mood.HANG:
                    while caller.recv(65_536):
                        pass
                elif mood is Mood.ERROR:
                    caller.recv(65_536)
                    caller.sendall(
                        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                    )
                else:
                    self._forward(caller, answers=mood is Mood.PASS)
            finally:
                with self._lock:
                    self._open.discard(caller)

    def _forward(self, caller: socket.socket, *, answers: bool) -> None:
        with socket.create_connection(self._to) as server:
            with self._lock:
                self._open.add(server)
            try:
                back = threading.Thread(target=self._copy_back, args=(server, caller, answers), daemon=True)
                back.start()
                while data := caller.recv(65_536):
                    line = data.split(b"\r\n", 1)[0].decode("latin-1")
                    if line.endswith(" HTTP/1.1"):
                        self.requests.append(line.removesuffix(" HTTP/1.1"))
                    server.sendall(data)
            finally:
                with contextlib.suppress(OSError):
                    server.shutdown(socket.SHUT_RDWR)
                back.join()
                with self._lock:
                    self._open.discard(server)

    def _copy_back(self, server: socket.socket, caller: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65_536):
                if not answers:
                    break
                caller.sendall(data)
        with contextlib.suppress(OSError):
            caller.shutdown(socket.SHUT_RDWR)
