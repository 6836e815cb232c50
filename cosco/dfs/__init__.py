"""Stores: where daemons keep chunks, behind the one protocol of `cosco.dfs.protocol`.

Words: docs/words.md.
"""

from __future__ import annotations

from cosco.dfs.bounded import BoundedStore, answered_in
from cosco.dfs.local import LocalStore
from cosco.dfs.memory import MemoryStore
from cosco.dfs.protocol import (
    GivesAccess,
    IOEvent,
    IOKind,
    Observer,
    Store,
    StoredFile,
    StoreFull,
)
from cosco.dfs.registry import open_store

__all__ = [
    "BoundedStore",
    "GivesAccess",
    "IOEvent",
    "IOKind",
    "LocalStore",
    "MemoryStore",
    "Observer",
    "Store",
    "StoreFull",
    "StoredFile",
    "answered_in",
    "open_store",
]
