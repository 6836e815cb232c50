"""Open exchanges out of the rows of the database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.metadata.state.records.changes import ChangeLog, Row
from cosco.metadata.state.records.table_rows import SPEC_COLUMNS, Placed, spec_from_row
from cosco.protocol.keys import RangeKey
from cosco.protocol.records import PartitionRange

#: Table → what takes the columns after the number, once the exchange is there.
_PARTS: Final[dict[str, Callable[[ExchangeState], Callable[..., None]]]] = {
    "counters": lambda exchange: exchange.restore_counters,
    "mappers": lambda exchange: exchange.attempts.restore,
    "sums": lambda exchange: exchange.builds.restore_sums,
    "builds": lambda exchange: exchange.builds.restore_build,
    "resent": lambda exchange: exchange.builds.restore_resent,
    "losses": lambda exchange: exchange.losses.restore,
    "pending": lambda exchange: exchange.losses.restore_pending,
    "failures": lambda exchange: exchange.losses.verdicts.restore,
    "tries": lambda exchange: exchange.losses.tries.restore,
    "dropped_builds": lambda exchange: exchange.dropped.restore,
}


def restore_exchanges(
    tables: Mapping[str, list[Row]], changes: ChangeLog, attempt_secret: bytes = b""
) -> dict[int, ExchangeState]:
    """Return the open exchanges by number, as they were when their rows were written."""
    ranges: defaultdict[int, list[PartitionRange]] = defaultdict(list)
    for number, *columns in tables.get("ranges", ()):
        ranges[number].append(PartitionRange(*columns))
    placed: defaultdict[RangeKey, list[Placed]] = defaultdict(list)
    for number, *columns in tables.get("assignments", ()):
        placed[RangeKey(number, columns[0])].append(Placed.from_row(tuple(columns)))
    exchanges = {}
    for number, *columns in tables.get("exchanges", ()):
        spec = spec_from_row(columns[:SPEC_COLUMNS])
        owner, callback, *rest, direct_reads, tenant, created_s, trace = columns[SPEC_COLUMNS:]
        spec = replace(spec, direct_reads=bool(direct_reads), trace=trace)
        exchange = ExchangeState(
            number,
            spec,
            owner,
            tuple(ranges[number]),
            [placed[RangeKey(number, one.index)] for one in ranges[number]],
            changes,
            callback=bool(callback),
            attempt_secret=attempt_secret,
        )
        exchange.tenant, exchange.created_s = tenant, created_s
        exchange.restore(*rest)
        exchanges[number] = exchange
    for table, part_of in _PARTS.items():
        for number, *columns in tables.get(table, ()):
            part_of(exchanges[number])(*columns)
    return exchanges
