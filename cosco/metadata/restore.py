"""Open exchanges out of the rows of the database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from cosco.metadata.changes import ChangeLog, Row, unsigned64
from cosco.metadata.exchanges import ExchangeState
from cosco.metadata.rows import Placed, placed_from_row, spec_from_row
from cosco.records import PartitionRange, RowKind

_SPEC_COLUMNS = slice(1, 9)


def restore_exchanges(
    tables: Mapping[str, list[Row]], changes: ChangeLog
) -> dict[int, ExchangeState]:
    """The open exchanges by number, as they were when their rows were taken."""
    ranges: defaultdict[int, list[PartitionRange]] = defaultdict(list)
    for number, *part in tables.get("ranges", ()):
        ranges[unsigned64(number)].append(PartitionRange(*map(unsigned64, part)))
    placed: defaultdict[int, defaultdict[int, list[Placed]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for number, *columns in tables.get("assignments", ()):
        epoch = placed_from_row(tuple(columns))
        placed[unsigned64(number)][epoch.assignment.range_index].append(epoch)

    exchanges = {}
    for row in tables.get("exchanges", ()):
        number = unsigned64(row[0])
        owner, generation, kind, schema = row[_SPEC_COLUMNS.stop :]
        assert isinstance(owner, bytes)
        assert isinstance(schema, bytes)
        exchange = ExchangeState(
            number,
            spec_from_row(row[_SPEC_COLUMNS]),
            owner,
            tuple(ranges[number]),
            (placed[number][part.index] for part in ranges[number]),
            changes,
        )
        exchange.generation = unsigned64(generation)
        exchange.kind = RowKind(unsigned64(kind))
        exchange.schema = schema
        exchanges[number] = exchange

    for number, attempts, version in tables.get("counters", ()):
        exchanges[unsigned64(number)].restore_counters(unsigned64(attempts), unsigned64(version))
    for number, mapper, attempt in tables.get("mappers", ()):
        exchanges[unsigned64(number)].restore_mapper(
            unsigned64(mapper), None if attempt is None else unsigned64(attempt)
        )
    for number, index, sums, writers in tables.get("sums", ()):
        assert isinstance(sums, bytes)
        assert isinstance(writers, bytes)
        exchanges[unsigned64(number)].restore_sums(unsigned64(index), sums, writers)
    return exchanges
