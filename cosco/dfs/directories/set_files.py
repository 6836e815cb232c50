"""The files by which directories know that they are one store.

`cosco-store.json` is a JSON object in ASCII: `format` (2), `store_id`, `member` (from 0), `members`
and `directories`, a list of text. A directory that is a store by itself has another format there,
so neither can be taken for the other. `cosco-store.complete` is empty: all members have theirs.
`cosco-store.join` is made by an operator.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

from cosco.dfs.directories.state.set_membership import Membership, Seen
from cosco.dfs.identity import IDENTITY_FILE, SET_FORMAT, create_exclusively
from cosco.dfs.paths import RESERVED
from cosco.dfs.posix import make_root

_SINGLE_FORMAT: Final = 1
_MAX_BYTES: Final = 1 << 20
_COMPLETE: Final = RESERVED + "complete"
_JOIN: Final = RESERVED + "join"
_STORE_ID: Final = re.compile(r"[0-9a-f]{32}")


def look_at(folder: Path) -> Seen:
    """Return what the identity files of a directory say; one that is not there is blank."""
    path = folder / IDENTITY_FILE
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES)
    except FileNotFoundError:
        return Seen(joins=(folder / _JOIN).exists())
    except OSError as error:
        return Seen(problem=f"{error.strerror or error}")
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict) and found.get("format") == _SINGLE_FORMAT:
        return Seen(single="is a store by itself: give it alone, or directories that are empty")
    membership = _parsed(found)
    if membership is None:
        return Seen(single=f"has no identity in {IDENTITY_FILE} that is known: restore the file")
    return Seen(membership=membership, is_complete=(folder / _COMPLETE).exists())


def make_member(folder: Path, membership: Membership) -> None:
    """Give a directory, made if it is missing, an identity; one that it has stays.

    Raises: OSError.
    """
    make_root(folder)
    identity = {
        "format": SET_FORMAT,
        "store_id": membership.store_id,
        "member": membership.member,
        "members": membership.members,
        "directories": membership.directories,
    }
    create_exclusively(folder / IDENTITY_FILE, json.dumps(identity) + "\n")
    (folder / _JOIN).unlink(missing_ok=True)


def mark_complete(folder: Path) -> None:
    """Note in a directory that all members have their identity; raises OSError."""
    create_exclusively(folder / _COMPLETE, "")


def _parsed(found: Any) -> Membership | None:
    """Return what an identity file says, if it makes sense."""
    if not isinstance(found, dict) or found.get("format") != SET_FORMAT:
        return None
    store_id, member = found.get("store_id"), found.get("member")
    members, directories = found.get("members"), found.get("directories")
    if not (isinstance(store_id, str) and _STORE_ID.fullmatch(store_id)):
        return None
    if not (isinstance(member, int) and isinstance(members, int) and 0 <= member < members):
        return None
    if not isinstance(directories, list) or len(directories) != members:
        return None
    return Membership(store_id, member, members, tuple(map(str, directories)))
