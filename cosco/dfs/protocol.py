"""What the daemons ask of a store, small enough for a local disk and for an object store.

| call            | local disk                        | object store                            |
| --------------- | --------------------------------- | --------------------------------------- |
| `open`          | identity file, made exclusively   | identity object, put "if none match"    |
| `put`           | write a new file, sync            | put one object                          |
| `read`          | read at the offset                | ranged get                              |
| `read_into`     | read into the buffers             | the same, copied into the buffers       |
| `list`          | walk the folder of the prefix     | list by prefix                          |
| `list_folders`  | read one folder                   | list by prefix and delimiter `/`        |
| `delete_prefix` | remove a tree                     | list by prefix, delete in batches       |
| `close`         | end the threads                   | end the connections                     |

Files are written whole and never changed, renamed or appended to. A put that fails, or whose
process dies, may leave a file with any beginning of its bytes, and one that was given up may still
land; so a path is only ever put again with the same bytes.

Paths are relative, with `/` between components; a file is never also a folder. Folders
come and go with their files, except that an emptied one may still be named by
`list_folders`. `ValueError` is raised for a path that `cosco.dfs.paths` refuses.

The id of a store that is not durable begins with `memory:` (VOLATILE_STORE of
`cosco.protocol.records`): the metadata service judges by it that its files end with the daemon.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable


class StoreFull(OSError):
    """The store has no room, or no quota, for what was put; nothing of it was kept."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of a store."""

    path: str
    size_bytes: int


#: What a store does that takes time, and that costs money where each request does: only reads
#: and writes move bytes of files.
IOKind = Literal["read", "write", "list", "delete", "head"]


@dataclass(frozen=True, slots=True)
class IOEvent:
    """One physical read or write: `length` bytes at `offset` took `seconds`.

    `start` is on the clock of `time.perf_counter`, which all processes of a host share. Stores
    that are asked by requests also tell of the other kinds, whose path may be a prefix, and of
    what failed or was given up, with a length of zero.
    """

    kind: IOKind
    path: str
    offset: int
    length: int
    start: float
    seconds: float
    #: Requests that were made for it; those that a library repeated by itself are not known.
    requests: int = 1


@runtime_checkable
class GivesAccess(Protocol):
    """What a store may have beside the calls of `Store`: access for readers, to one file each."""

    async def access(self, path: str, expires_s: float) -> str | None:
        """Return a URL by which anybody can read this one file, for about `expires_s`.

        None if there is none, now or ever: readers are sent the bytes then. The file need not be
        there. `file:` URLs never expire, and are believed only below a directory with the identity
        file of the store; of `http:` and `https:` ranges must be served, with status 206.

        Raises OSError if it cannot be made now.
        """


#: Told of every physical read and write, and of every request, on the event loop; must neither
#: block nor raise.
Observer = Callable[[IOEvent], None]


class Store(Protocol):
    """A place for segments. Used from one event loop; never blocks it."""

    #: As given to `cosco.dfs.open_store`.
    url: str
    #: Names the store itself, whoever opens it by whatever URL; valid after `open`.
    store_id: str
    #: Whether files outlive the process; if not, `store_id` begins with `memory:`.
    durable: bool

    async def open(self) -> None:
        """Read the store's id, or make one, and check that the store can be written.

        Raises InvalidArgument, in one line, if it cannot.
        """

    async def put(self, path: str, parts: Sequence[memoryview]) -> None:
        """Write a file that holds the joined `parts`.

        Durable on return, the file's name included, but for a store that is `DurableLater`. A
        path has one put at a time. Another one of the same path, after a put that failed or whose
        process died, has the same bytes, and leaves the file with exactly these. The length of all
        parts together is a multiple of
        `cosco.format.chunk.ALIGNMENT`, and not zero. The parts are in use until this returns or
        raises, also when it is cancelled.

        Raises StoreFull for want of room, and OSError for whatever else the medium reports.
        """

    async def read(self, path: str, offset: int, length: int) -> bytes:
        """Return `length` bytes at `offset`, or those up to the end of the file.

        Raises FileNotFoundError if there is no such file.
        """

    async def read_into(self, path: str, offset: int, parts: Sequence[memoryview]) -> int:
        """Fill `parts`, one after another, with the file from `offset` on.

        Returns the bytes that were read: less than the parts hold only at the end of the
        file. With `offset` and each part's memory and length multiples of
        `cosco.format.chunk.ALIGNMENT` it is as few reads as the medium allows, without a copy.
        The parts are in use until this returns or raises, also when it is cancelled.

        Raises FileNotFoundError if there is no such file.
        """

    async def list(self, prefix: str) -> builtins.list[StoredFile]:
        """Return the files whose path begins with the string `prefix`, ascending by path.

        The prefix may end within a name: `a/b/3-` finds `a/b/3-x`; `g/1/` never `g/10/x`.
        """

    async def list_folders(self, prefix: str) -> builtins.list[str]:
        """Return the names of the folders right below `prefix`, ascending.

        `prefix` ends in `/`, or is empty for the whole store.
        """

    async def delete_prefix(self, prefix: str) -> None:
        """Delete every file below `prefix`, which ends in `/`; durable on return.

        Deleting what is gone is no error. Others may delete and put files below it meanwhile;
        a file that appears during the call may stay.
        """

    async def close(self) -> None:
        """Wait for what is under way and let go; repeatable. No call may follow.

        When this is cancelled, what is under way is abandoned, as its medium hangs: those calls
        raise at once when they are cancelled, the process can end, and until it does the medium
        may use their memory.
        """


@dataclass(frozen=True, slots=True)
class MoveTrouble:
    """Since when nothing became durable that somebody waits for, and why.

    hangs: whether a call of the medium is under way for too long.
    """

    since: float
    reason: str
    hangs: bool


class DurableLater(Protocol):
    """What a store has beside the calls of `Store` whose files may become durable after `put`.

    What `put` has written can be read from then on, by whoever has this store open; it is durable,
    and others can read it, once `is_durable` says so or `on_durable` was called. A store without
    these is durable when `put` returns.
    """

    #: Called, on the event loop, with the path of a file that has become durable after its put.
    on_durable: Callable[[str], None]
    #: Called with the path of a file that never will be, as it is damaged, or gone.
    on_lost: Callable[[str], None]

    def is_durable(self, path: str) -> bool:
        """Whether a file, which was put, is durable."""

    def hurry(self, prefix: str) -> None:
        """Make what is below a folder, or one file, durable soon: somebody waits for it."""

    @property
    def trouble(self) -> MoveTrouble | None:
        """Why nothing becomes durable that somebody waits for; None while it does."""
