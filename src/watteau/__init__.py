"""Watteau runs an AI cloud that is spread over several sites, keeps its books, and says why."""

__version__ = "0.1.0"
