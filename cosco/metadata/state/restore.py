"""Open exchanges out of the rows of the database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.metadata.state.records.changes import ChangeLog, Row, SqlValue, unsigned64
from cosco.metadata.state.records.table_rows import Placed, placed_from_row, spec_from_row
from cosco.protocol.records import PartitionRange, RowKind

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
        owner, callback, generation, kind, schema = row[_SPEC_COLUMNS.stop :]
        exchange = ExchangeState(
            number,
            spec_from_row(row[_SPEC_COLUMNS]),
            _blob(owner),
            tuple(ranges[number]),
            (placed[number][part.index] for part in ranges[number]),
            changes,
            callback=bool(callback),
        )
        exchange.attempts.generation = unsigned64(generation)
        exchange.kind = RowKind(unsigned64(kind))
        exchange.schema = _blob(schema)
        exchanges[number] = exchange

    for number, highest, version, losses in tables.get("counters", ()):
        exchange = exchanges[unsigned64(number)]
        exchange.attempts.highest = unsigned64(highest)
        exchange.version = unsigned64(version)
        exchange.losses.highest = unsigned64(losses)
    for number, mapper, attempt, generation in tables.get("mappers", ()):
        exchanges[unsigned64(number)].attempts.restore(
            unsigned64(mapper),
            None if attempt is None else unsigned64(attempt),
            unsigned64(generation),
        )
    for number, index, sums, writers in tables.get("sums", ()):
        exchanges[unsigned64(number)].builds.restore_sums(
            unsigned64(index), _blob(sums), _blob(writers)
        )
    for number, index, build, expected, regained in tables.get("builds", ()):
        exchanges[unsigned64(number)].builds.restore_build(
            unsigned64(index), unsigned64(build), _blob(expected), _blob(regained)
        )
    for number, index, mapper, attempt in tables.get("resent", ()):
        exchanges[unsigned64(number)].builds.restore_resent(
            unsigned64(index), unsigned64(mapper), unsigned64(attempt)
        )
    for number, loss_id, *loss in tables.get("losses", ()):
        exchanges[unsigned64(number)].losses.restore(unsigned64(loss_id), tuple(loss))
    for number, index, error, reason in tables.get("failures", ()):
        exchanges[unsigned64(number)].losses.restore_failure(
            unsigned64(index), str(error), str(reason)
        )
    for number, *tries in tables.get("tries", ()):
        exchanges[unsigned64(number)].losses.restore_tries(*map(unsigned64, tries))
    return exchanges


def _blob(value: SqlValue) -> bytes:
    assert isinstance(value, bytes)
    return value
