"""What the state has changed and the database does not have yet, and what is to be told of it.

The state names rows as it changes them; whoever writes drains them as one batch. A row is
rendered when it is drained, so one that changed a hundred times in a batch is written once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, NamedTuple

from cosco.protocol.events import Event, EventLog

#: What SQL can keep: integers from 0 to 2^64 - 1, floats, text, bytes and None.
Row = tuple[Any, ...]


class Change(NamedTuple):
    """One row to write; `row` None deletes every row of `table` whose key begins with `key`."""

    table: str
    key: Row
    row: Row | None


@dataclass(frozen=True, slots=True)
class Stored:
    """A database's content: rows by table, key columns first, in the order of their keys.

    `next_number` is above every exchange number ever given. attempt_secret: what attempt ids cannot
    be guessed without; empty: they count up.
    """

    cluster_id: str
    next_number: int = 1
    tables: dict[str, list[Row]] = field(default_factory=dict)
    attempt_secret: bytes = field(default=b"", repr=False)

    def as_of(self, unix_us: int) -> Stored:
        """Return the same for a service that starts now: numbers go on from the microsecond of the
        Unix clock, so that those are not given again that were after a backup which is restored.

        Daemons have rows by these numbers. A new database begins with 1.
        """
        if self.next_number == 1:
            return self
        return replace(self, next_number=max(self.next_number, unix_us))


class ChangeLog:
    """The rows that changed since the last `pop_all`.

    events: what operators are told of these changes, once they are durable.
    """

    def __init__(self) -> None:
        self.events = EventLog()
        #: Gives whose the open exchange of a number is; empty: nobody's.
        self.tenant_of: Callable[[int], str] = lambda _: ""
        # By table and first column of the key, so that a delete looks at few of them.
        self._dirty: dict[tuple[str, Any], dict[Row, Callable[[], Row] | None]] = {}
        self._columns: dict[str, int] = {}  # of the keys of a table

    def __bool__(self) -> bool:
        """Whether `pop_all` has something to give."""
        return bool(self._dirty)

    def __len__(self) -> int:
        """Return how many rows that is."""
        return sum(map(len, self._dirty.values()))

    def tell(self, event: Event) -> None:
        """Have operators told of something, once what changed until now is durable.

        What is of an open exchange is told with its tenant, which is not known any more by then if
        the exchange is closed.
        """
        if event.number is not None and (tenant := self.tenant_of(event.number)):
            event = replace(event, tenant=tenant)
        self.events.add(event)

    def put(self, table: str, key: Row, render: Callable[[], Row]) -> None:
        """Note that row `key` changed; `render` gives its other columns when it is drained."""
        self._columns[table] = len(key)
        self._dirty.setdefault((table, key[0]), {})[key] = render

    def put_all(self, table: str, first: Any, rows: Mapping[Row, Callable[[], Row]]) -> None:
        """Note many rows at once, whose keys have two columns and the same first one."""
        self._columns[table] = 2
        self._dirty.setdefault((table, first), {}).update(rows)

    def delete(self, table: str, key: Row) -> None:
        """Delete the rows whose key begins with `key`, those not yet taken included."""
        dirty = self._dirty.setdefault((table, key[0]), {})
        if len(key) == 1:
            dirty.clear()
        elif len(key) < self._columns.get(table, 0):
            for below in [k for k in dirty if k[: len(key)] == key]:
                del dirty[below]
        dirty[key] = None

    def pop_all(self) -> list[Change]:
        """Return everything that changed since the last call, for one transaction.

        They come by table, the one that was named first before others. What was named of one
        row keeps its order, so that a delete goes before later rows.
        """
        tables: dict[str, list[Change]] = {}
        for (table, _), rows in self._dirty.items():
            tables.setdefault(table, []).extend(
                Change(table, key, None if render is None else render())
                for key, render in rows.items()
            )
        self._dirty.clear()
        return list(chain.from_iterable(tables.values()))
