"""Which stores there are, by the schemes of their URLs: Cosco's own, and those of others.

A package adds one by an entry point of the group "cosco.stores", whose name is the scheme, and
whose object is called as those here are: `factory(url, *, threads, observer)`. It returns a store
that is still to be opened, does no IO, and raises InvalidArgument for a URL that it refuses. A
scheme of Cosco's own cannot be taken.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from cosco.dfs.identity import read_or_create_identity
from cosco.dfs.local import LocalStore
from cosco.dfs.memory import MemoryStore
from cosco.dfs.protocol import Observer, Store
from cosco.errors import InvalidArgument

GROUP: Final = "cosco.stores"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_BOOLEANS: Final = {"true": True, "false": False}
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
#: A user, perhaps with a password, before the host, or before that of an endpoint.
_USER: Final = re.compile(r"^[^:/?#]*://[^/?#]*@|[?&][^=&]*=[^&]*://[^/&]*@")
#: Names of parameters that somebody would give a secret by.
_SECRET: Final = re.compile(
    r"[?&;]([^=&;]*(?:secret|passw|token|credential|key|sas|sig)"
    r"[^=&;]*)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class _Extra:
    """A factory that is imported when it is asked for, as its library is an extra."""

    shape: str
    module: str
    factory: str
    extra: str

    def load(self, url: str) -> Callable[..., Store]:
        """Return the factory; raises InvalidArgument if the extra is not installed."""
        try:
            module = importlib.import_module(self.module)
        except ImportError as error:
            if (error.name or "cosco").partition(".")[0] == "cosco":
                raise
            raise InvalidArgument(
                f"store {url!r} needs {error.name}: pip install 'cosco[{self.extra}]'"
            ) from None
        factory: Callable[..., Store] = getattr(module, self.factory)
        return factory


def _objects(shape: str) -> _Extra:
    return _Extra(shape, "cosco.dfs.objects.object_store", "open_object_store", "s3")


#: Scheme → what makes stores of it, of those that need an extra.
_EXTRAS: Final = {
    "s3": _objects("s3://BUCKET/PREFIX"),
    "gs": _objects("gs://BUCKET/PREFIX"),
    "az": _objects("az://CONTAINER/PREFIX?account=NAME"),
    "hdfs": _Extra("hdfs://HOST:PORT/DIR", "cosco.dfs.hdfs.hdfs_store", "open_hdfs_store", "hdfs"),
}
_PLAIN: Final = ("file:///DIR", "file:///DIR?fsync=false", "memory://")


def open_store(url: str, *, threads: int = 4, observer: Observer | None = None) -> Store:
    """Return the store of a URL, still to be opened: this does no IO.

    `threads` is the number of writes under way at a time, and that of other calls. Raises
    InvalidArgument for a URL that is not supported.
    """
    _refuse_secrets(url)
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidArgument(f"store {url!r} is no URL: {_supported()}") from None
    if parts.scheme == "memory":
        if url != "memory://":
            raise InvalidArgument(f"store {url!r} has something after memory://: {_supported()}")
        return MemoryStore(url, observer=observer)
    if parts.scheme == "file":
        return _open_local(url, parts, threads, observer)
    if _CONTROL.search(url):  # which would be dropped without a word
        raise InvalidArgument(f"store {url!r} is of an unknown kind: {_supported()}")
    if parts.scheme in _EXTRAS:
        factory = _EXTRAS[parts.scheme].load(url)
    else:
        factory = _of_others(url, parts.scheme)
    return factory(url, threads=threads, observer=observer)


def open_directory(
    url: str, *, threads: int, observer: Observer | None, is_member: bool
) -> LocalStore:
    """Return the store of a directory, still to be opened; a member of several has no id itself.

    Raises InvalidArgument for a URL that is none of a directory.
    """
    _refuse_secrets(url)
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidArgument(f"store {url!r} is no URL: write file:///DIR") from None
    if parts.scheme != "file":
        raise InvalidArgument(
            f"store {url!r} is no directory: several --store, and --store-reserve, are for "
            "file:///DIR alone"
        )
    identify = _no_id if is_member else read_or_create_identity
    return _open_local(url, parts, threads, observer, identify)


def open_flash(
    url: str, *, threads: int, observer: Observer | None, identify: Callable[[Path], str]
) -> LocalStore:
    """Return the fast tier of a store of two, still to be opened, whose id `identify` gives.

    Raises InvalidArgument for a URL that is none of a directory.
    """
    _refuse_secrets(url)
    parts = urlsplit(url)
    if parts.scheme != "file":
        raise InvalidArgument(f"flash is {url!r}: it is to be a directory, file:///DIR")
    return _open_local(url, parts, threads, observer, identify)


def _no_id(_directory: Path) -> str:
    return ""


def _open_local(
    url: str,
    parts: SplitResult,
    threads: int,
    observer: Observer | None,
    identify: Callable[[Path], str] = read_or_create_identity,
) -> LocalStore:
    try:
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True))
    except ValueError:
        raise InvalidArgument(f"store {url!r} is no URL: {_supported()}") from None
    directory = unquote(parts.path, errors="surrogateescape")
    if parts.netloc or directory[:1] != "/" or not directory.strip("/") or "\0" in directory:
        raise InvalidArgument(f"store {url!r} names no absolute directory: {_supported()}")
    if _CONTROL.search(url):  # which would be dropped without a word
        raise InvalidArgument(f"store {url!r} has a line end or the like in it: {_supported()}")
    if parts.path.startswith("/~"):
        raise InvalidArgument(
            f"store {url!r} begins with ~, which stands for nothing here: {_supported()}"
        )
    fsync = _BOOLEANS.get(parameters.pop("fsync", "true"))
    if fsync is None or parameters or parts.fragment:
        raise InvalidArgument(f"store {url!r} has an unknown parameter: {_supported()}")
    return LocalStore(
        url, directory, fsync=fsync, threads=threads, observer=observer, identify=identify
    )


def _of_others(url: str, scheme: str) -> Callable[..., Store]:
    """Return the factory of a package that has registered the scheme."""
    for entry_point in entry_points(group=GROUP, name=scheme) if scheme else ():
        try:
            factory: Callable[..., Store] = entry_point.load()
        except (ImportError, AttributeError) as error:
            raise InvalidArgument(
                f"store {url!r}: its entry point {entry_point.value} cannot be loaded: {error}"
            ) from error
        return factory
    meant = f" (file://{url}?)" if url.startswith("/") else ""
    raise InvalidArgument(f"store {url!r} is of an unknown kind{meant}: {_supported()}")


def _supported() -> str:
    shapes = [*_PLAIN, *(extra.shape for extra in _EXTRAS.values())]
    own = {shape.partition(":")[0] for shape in shapes}
    others = {entry_point.name for entry_point in entry_points(group=GROUP)} - own
    shapes += sorted(f"{name}://…" for name in others)
    return f"write {', '.join(shapes[:-1])} or {shapes[-1]}"


def _refuse_secrets(url: str) -> None:
    """Refuse a URL with a secret in it, without repeating it: it would be told to everybody."""
    found = _SCHEME.match(url)
    shown = f"{found[1]}://…" if found else "…"
    advice = "give credentials by the environment, a profile or a role: docs/stores.md"
    if _USER.search(url) or _USER.search(unquote(url)):
        raise InvalidArgument(f"store {shown!r} has a user or a password in it: {advice}")
    if secret := _SECRET.search(unquote(url)):
        raise InvalidArgument(f"store {shown!r} has the parameter {secret[1][:40]!r}: {advice}")
