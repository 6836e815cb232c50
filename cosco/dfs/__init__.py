"""Stores: where daemons keep chunks, behind the one protocol of `cosco.dfs.protocol`.

Words: docs/words.md.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from cosco.dfs.bounded import BoundedStore, answered_in
from cosco.dfs.local import LocalStore
from cosco.dfs.memory import MemoryStore
from cosco.dfs.protocol import IOEvent, Observer, Store, StoredFile, StoreFull
from cosco.errors import InvalidArgument

__all__ = [
    "BoundedStore",
    "IOEvent",
    "LocalStore",
    "MemoryStore",
    "Observer",
    "Store",
    "StoreFull",
    "StoredFile",
    "answered_in",
    "open_store",
]

_SUPPORTED = "write file:///DIR, file:///DIR?fsync=false or memory://"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_BOOLEANS = {"true": True, "false": False}


def open_store(url: str, *, threads: int = 4, observer: Observer | None = None) -> Store:
    """Return the store of a URL, still to be opened: this does no IO.

    `threads` is the number of writes under way at a time, and that of other calls. Raises
    InvalidArgument for a URL that is not supported.
    """
    try:
        parts = urlsplit(url)
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True))
    except ValueError:
        raise InvalidArgument(f"store {url!r} is no URL: {_SUPPORTED}") from None
    if parts.scheme == "memory":
        if url != "memory://":
            raise InvalidArgument(f"store {url!r} has something after memory://: {_SUPPORTED}")
        return MemoryStore(url, observer=observer)
    if parts.scheme != "file":
        meant = f" (file://{url}?)" if url.startswith("/") else ""
        raise InvalidArgument(f"store {url!r} is of an unknown kind{meant}: {_SUPPORTED}")
    directory = unquote(parts.path, errors="surrogateescape")
    if parts.netloc or directory[:1] != "/" or not directory.strip("/") or "\0" in directory:
        raise InvalidArgument(f"store {url!r} names no absolute directory: {_SUPPORTED}")
    if _CONTROL.search(url):  # which would be dropped without a word
        raise InvalidArgument(f"store {url!r} has a line end or the like in it: {_SUPPORTED}")
    if parts.path.startswith("/~"):
        raise InvalidArgument(
            f"store {url!r} begins with ~, which stands for nothing here: {_SUPPORTED}"
        )
    fsync = _BOOLEANS.get(parameters.pop("fsync", "true"))
    if fsync is None or parameters or parts.fragment:
        raise InvalidArgument(f"store {url!r} has an unknown parameter: {_SUPPORTED}")
    return LocalStore(url, directory, fsync=fsync, threads=threads, observer=observer)
