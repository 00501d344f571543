"""Serves an app over HTTP with uvicorn, and lets long answers end before it stops."""

import socket
from typing import Any

import uvicorn
from fastapi import FastAPI

from watteau.server.service import Services

_LAST_ANSWERS_S = 5


class Server(uvicorn.Server):
    """uvicorn, which ends event streams and long polls first: it would wait for them for ever."""

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                log_config=None,  # our own log has a line for each request
                access_log=False,
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=_LAST_ANSWERS_S,
                lifespan="on",
            )
        )
        services = app.state.services
        assert isinstance(services, Services)
        self._pulse = services.pulse

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop taking requests, end streams and polls, finish the other answers."""
        self._pulse.close()
        await super().shutdown(sockets)

    @property
    def port(self) -> int:
        """The port that it listens on, once it has started: of use when port 0 was asked for."""
        listening: Any = self.servers[0].sockets[0]
        port: int = listening.getsockname()[1]
        return port
