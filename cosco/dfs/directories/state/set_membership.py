"""Which directories are one store, by their identity files. No IO.

docs/architecture/directories.md says how a set is made, and what of it may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

ADVICE: Final = "docs/stores.md, Several directories"


@dataclass(frozen=True, slots=True)
class Membership:
    """What the identity file of a member says. `directories`: where they were at first."""

    store_id: str
    member: int
    members: int
    directories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at a directory.

    problem: why it could not be looked at; `is_slow`: as it did not answer.
    single: it is a store by itself, or something unknown.
    joins: the operator has marked it as a new member in the place of one that is gone.
    """

    problem: str = ""
    is_slow: bool = False
    single: str = ""
    membership: Membership | None = None
    is_complete: bool = False
    joins: bool = False

    @property
    def is_blank(self) -> bool:
        """Whether it can be made a member."""
        return not (self.problem or self.single or self.membership)


@dataclass(frozen=True, slots=True)
class Refuse:
    """The set cannot be used; `reason` is one line."""

    reason: str


@dataclass(frozen=True, slots=True)
class MakeMember:
    """Give a directory an identity, if it has none still, and look again."""

    directory: str
    membership: Membership


@dataclass(frozen=True, slots=True)
class MarkComplete:
    """Mark these directories: all members have their identity. Then look again."""

    directories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ready:
    """The set can be used.

    gone: how many members are not there.
    missing: of the directories that were given those that are not there, and why.
    """

    store_id: str
    gone: int = 0
    missing: Mapping[str, str] = field(default_factory=dict)


Step = Refuse | MakeMember | MarkComplete | Ready


def next_step(seen: Mapping[str, Seen], new_id: str, may_miss: int = 0) -> Step:
    """Return what to do about directories, by name, of which each was looked at.

    new_id: the store id of a set that is yet to be made.
    may_miss: how many members may be missing.
    """
    for name, one in seen.items():
        if one.single:
            return Refuse(f"directory {name!r} {one.single}")
    found = {name: one.membership for name, one in seen.items() if one.membership is not None}
    blank = sorted(name for name, one in seen.items() if one.is_blank)
    if not found:
        for name, one in seen.items():
            if one.problem:
                return Refuse(f"directory {name!r}: {one.problem}")
        names = tuple(sorted(seen))
        return MakeMember(blank[0], Membership(new_id, 0, len(seen), names))
    if (reason := _contradiction(found, len(seen))) is not None:
        return Refuse(reason)
    if any(seen[name].is_complete for name in found):
        return _of_complete_set(seen, found, blank, may_miss)
    return _of_new_set(seen, found, blank)


def _contradiction(found: Mapping[str, Membership], count: int) -> str | None:
    """Return why memberships do not fit together."""
    first_name, first = next(iter(found.items()))
    members: dict[int, str] = {}
    for name, one in found.items():
        if one.store_id != first.store_id or one.members != first.members:
            return (
                f"directories {first_name!r} and {name!r} belong to different stores: give "
                "--store for those of one"
            )
        if one.member in members:
            return (
                f"directories {members[one.member]!r} and {name!r} are both member {one.member} "
                f"of the store: give the one that is in use, see {ADVICE}"
            )
        members[one.member] = name
    if count > first.members:
        return (
            f"{count} directories are given, and the store {first_name!r} belongs to has "
            f"{first.members}: see {ADVICE}"
        )
    return None


def _of_new_set(
    seen: Mapping[str, Seen], found: Mapping[str, Membership], blank: Sequence[str]
) -> Step:
    """Go on with a set that is not complete: whoever began may have died."""
    first = next(iter(found.values()))
    if len(seen) != first.members:
        missing = sorted(set(first.directories) - set(seen))
        return Refuse(
            f"the store of {next(iter(found))!r} has {first.members} directories, and {missing} "
            "are not given: give --store for each"
        )
    for name, one in seen.items():
        if one.problem:
            return Refuse(f"directory {name!r}: {one.problem}")
    if blank:
        return _make_member(blank[0], found)
    return MarkComplete(tuple(sorted(seen)))


def _of_complete_set(
    seen: Mapping[str, Seen],
    found: Mapping[str, Membership],
    blank: Sequence[str],
    may_miss: int,
) -> Step:
    first = next(iter(found.values()))
    joining = [name for name in blank if seen[name].joins]
    gone = sorted(set(range(first.members)) - {one.member for one in found.values()})
    if joining:
        if len(gone) != len(joining):
            return Refuse(
                f"directory {joining[0]!r} is to join the store, and {len(gone)} of its "
                f"directories are not there: give the others first, see {ADVICE}"
            )
        return _make_member(joining[0], found)
    unmarked = tuple(sorted(name for name in found if not seen[name].is_complete))
    if unmarked:
        return MarkComplete(unmarked)
    missing = {name: one.problem for name, one in seen.items() if one.problem}
    missing |= dict.fromkeys(blank, "it has no identity of this store: is its disk mounted?")
    if len(gone) > may_miss:
        return Refuse(_missing(first, gone, missing, may_miss))
    return Ready(first.store_id, len(gone), missing)


def _make_member(name: str, found: Mapping[str, Membership]) -> MakeMember:
    first = next(iter(found.values()))
    taken = {one.member for one in found.values()}
    member = min(set(range(first.members)) - taken)
    return MakeMember(name, Membership(first.store_id, member, first.members, first.directories))


def _missing(
    first: Membership, gone: Sequence[int], missing: Mapping[str, str], may_miss: int
) -> str:
    """Say which members are missing: those that were given, then where others were at first."""
    told = [f"{name!r} ({problem})" for name, problem in missing.items()]
    if len(gone) > len(told):
        was = [repr(first.directories[member]) for member in gone]
        told.append(f"not given (at first {' or '.join(was)})")
    return (
        f"{len(gone)} of the {first.members} directories of the store are missing: "
        f"{', '.join(told)}: bring them back, or give up what only they hold with "
        f"--store-missing {len(gone)}, which is {may_miss} now"
    )
