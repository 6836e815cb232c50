"""Has directories agree that they are one store: docs/architecture/directories.md."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from cosco.dfs.bounded import answered_in
from cosco.dfs.directories.set_files import look_at, make_member, mark_complete
from cosco.dfs.directories.state.set_membership import (
    MakeMember,
    MarkComplete,
    Ready,
    Refuse,
    Seen,
    next_step,
)
from cosco.dfs.local import LocalStore
from cosco.errors import InvalidArgument, ServiceUnavailable


async def agree(stores: Sequence[LocalStore], timeout_s: float, may_miss: int) -> Ready:
    """Have all directories know that they are one store, and return what it is.

    may_miss: how many members may be missing.

    Raises: InvalidArgument; ServiceUnavailable if a directory does not answer.
    """
    new_id = uuid.uuid4().hex
    by_name = {str(store.directory): store for store in stores}
    for _ in range(3 * len(stores) + 3):  # each step is made once, here or by others
        seen = await _look(stores, timeout_s)
        step = next_step(seen, new_id, may_miss)
        match step:
            case Ready():
                return step
            case Refuse(reason):
                if any(one.is_slow for one in seen.values()):
                    raise ServiceUnavailable(reason)
                raise InvalidArgument(reason)
            case MakeMember(name, membership):
                await _change(by_name[name], partial(make_member, membership=membership))
            case MarkComplete(names):
                for name in names:
                    await _change(by_name[name], mark_complete)
    raise ServiceUnavailable(f"the directories {sorted(by_name)} change while they are opened")


async def _look(stores: Sequence[LocalStore], timeout_s: float) -> dict[str, Seen]:
    """Return what each directory says; refuses one that is given twice, or in another."""
    looks = await asyncio.gather(*(_look_at(store, timeout_s) for store in stores))
    before: dict[Path, str] = {}
    for store, (path, _) in zip(stores, looks, strict=True):
        name = str(store.directory)
        for other, beside in before.items():
            if path == other:
                raise InvalidArgument(f"--store has one directory twice: {beside!r}, {name!r}")
            if path in other.parents or other in path.parents:
                raise InvalidArgument(
                    f"of --store one directory is in another: {beside!r}, {name!r}"
                )
        before[path] = name
    return {str(store.directory): seen for store, (_, seen) in zip(stores, looks, strict=True)}


async def _look_at(store: LocalStore, timeout_s: float) -> tuple[Path, Seen]:
    try:
        async with answered_in(timeout_s, "it"):
            return await store.call(lambda root: (Path(os.path.realpath(root)), look_at(root)))
    except TimeoutError as error:
        return store.directory, Seen(problem=error.strerror or "it hangs", is_slow=True)
    except OSError as error:
        return store.directory, Seen(problem=error.strerror or str(error))


async def _change(store: LocalStore, function: Callable[[Path], None]) -> None:
    try:
        await store.call(function)
    except OSError as error:
        raise InvalidArgument(
            f"store {store.url!r} cannot be written: {error.strerror}: "
            "give its user a directory to write to"
        ) from error
