"""Exchanges as rows of the database, without the number they begin with, and back."""

from __future__ import annotations

import json
from dataclasses import dataclass

from cosco.metadata.state.records.changes import Row, signed64, unsigned64
from cosco.protocol.records import Assignment, DaemonRef, ExchangeSpec, PartitionRange


@dataclass(frozen=True, slots=True)
class Placed:
    """An assignment, and its primary's store: files in it outlive the primary."""

    assignment: Assignment
    store_id: str


def spec_row(spec: ExchangeSpec) -> Row:
    return (
        spec.shuffle_id,
        spec.partitions,
        spec.replicas,
        spec.min_replicas,
        spec.codec,
        int(spec.deterministic),
        spec.lease_s,
        spec.schema,
    )


def spec_from_row(row: Row) -> ExchangeSpec:
    shuffle_id, partitions, replicas, min_replicas, codec, deterministic, lease_s, schema = row
    assert isinstance(lease_s, float)
    assert isinstance(schema, bytes)
    return ExchangeSpec(
        shuffle_id=str(shuffle_id),
        partitions=unsigned64(partitions),
        replicas=unsigned64(replicas),
        min_replicas=unsigned64(min_replicas),
        codec=str(codec),
        deterministic=bool(deterministic),
        lease_s=lease_s,
        schema=schema,
    )


def range_row(part: PartitionRange) -> Row:
    """The columns after (number, range)."""
    return part.first, part.count


def placed_row(placed: Placed) -> Row:
    """The columns after (number, range, epoch)."""
    assignment = placed.assignment
    return (
        assignment.build,
        signed64(assignment.primary.incarnation),
        assignment.primary.address,
        placed.store_id,
        json.dumps([[ref.incarnation, ref.address] for ref in assignment.replicas]),
        int(assignment.sealed),
    )


def placed_from_row(row: Row) -> Placed:
    """`row` begins with (range, epoch)."""
    range_index, epoch, build, incarnation, address, store_id, replicas, sealed = row
    return Placed(
        Assignment(
            range_index=unsigned64(range_index),
            epoch=unsigned64(epoch),
            build=unsigned64(build),
            primary=DaemonRef(unsigned64(incarnation), str(address)),
            replicas=tuple(DaemonRef(*ref) for ref in json.loads(str(replicas))),
            sealed=bool(sealed),
        ),
        str(store_id),
    )
