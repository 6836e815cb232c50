"""What the calls of a group's driver ask for, held against the group that there is."""

from __future__ import annotations

from pyroaring import BitMap

from cosco.errors import ExchangeClosed, ExchangeExists, ExchangeNotFound, InvalidArgument
from cosco.metadata.state.groups.group_rows import Group
from cosco.protocol.api_limits import shown
from cosco.protocol.records import ExchangeSpec


def not_open(group_id: str, *, used: bool) -> ExchangeClosed | ExchangeNotFound:
    """What is raised for a group that is not open, `used` if it was."""
    if used:
        return ExchangeClosed(
            f"group {shown(group_id)} was closed, or its driver's lease ran out",
            shuffle_id=group_id,
        )
    return ExchangeNotFound(
        f"there is no group {shown(group_id)}; create it first, or correct the id",
        shuffle_id=group_id,
    )


def check_same(group: Group, spec: ExchangeSpec, mappers: int, first: int, owner: bytes) -> None:
    """Raise what a call is told that does not go with the group that is there."""
    if not first and owner != group.owner:
        raise ExchangeExists(
            f"group {shown(group.id)} exists; ids are used once: take another",
            shuffle_id=group.id,
        )
    check_driver(group, owner)
    if (spec, mappers) != (group.spec, group.mappers):
        raise InvalidArgument(
            f"group {shown(group.id)} was made with other options or another number of mappers; "
            "extend it with those, or make another group",
            shuffle_id=group.id,
        )


def check_driver(group: Group, owner: bytes) -> None:
    """Raise InvalidArgument unless `owner` is the group's driver."""
    if owner != group.owner:
        raise InvalidArgument(
            f"group {shown(group.id)} has another driver; only the one that made it polls for it "
            "and extends it",
            shuffle_id=group.id,
        )


def check_indexes(group: Group, indexes: BitMap) -> None:
    """Raise InvalidArgument for an index that the group does not have."""
    if indexes and indexes.max() >= group.exchanges:
        raise InvalidArgument(
            f"exchange {indexes.max()} is outside of group {shown(group.id)}, which has exchanges "
            f"0 to {group.exchanges - 1}",
            shuffle_id=group.id,
        )
