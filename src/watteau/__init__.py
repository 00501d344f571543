"""Watteau runs an AI cloud that is spread over several sites, keeps its books, and says why."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watteau.client import Client
    from watteau.domain.requests import Request

__all__ = ["Client", "Request", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """The client, imported when it is first asked for: `import watteau` itself costs next to nothing (PEP 562)."""
    if name == "Client":
        from watteau.client import Client

        return Client
    if name == "Request":
        from watteau.domain.requests import Request

        return Request
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
