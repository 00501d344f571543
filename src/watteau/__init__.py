"""Watteau runs an AI cloud that is spread over several sites, keeps its books, and says why."""

from watteau.kernel_cache import use_own_folder

__version__ = "0.1.0"

use_own_folder()
