"""How a writer learns, and where it is the first decides, what an exchange's rows are."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from cosco.client.content.arrow_binding import binding_schema, refined
from cosco.client.content.arrow_schema import conversion, normalize_schema, schema_from_bytes
from cosco.client.content.arrow_transport import transport
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.errors import CoscoError, SchemaMismatch
from cosco.protocol.records import ExchangeInfo, RowKind

#: More changes than columns are given types in one exchange, level by level.
_MAX_TURNS: Final = 10_000


class RowKindBinding:
    """What the rows of a writer's exchange are, as far as the writer knows."""

    def __init__(self, info: ExchangeInfo, metadata: MetadataClient, *, may_refine: bool) -> None:
        """Begin with what is known. Without `may_refine` a column without a type stays so."""
        self._info = info
        self._metadata = metadata
        self._may_refine = may_refine
        self._parsed: tuple[bytes, pa.Schema] | None = None

    @property
    def is_decided(self) -> bool:
        """Whether the rows are of one kind. If not, the first ones bind it, and must be right."""
        return self._info.kind is not RowKind.UNDECIDED

    @property
    def schema(self) -> pa.Schema | None:
        """The exchange's schema as it was seen last, None if it has none."""
        info = self._info
        return schema_from_bytes(info.schema) if info.kind is RowKind.ARROW else None

    def bind_bytes(self) -> None:
        """Make the rows bytes if that is undecided.

        Raises: SchemaMismatch if they are not.
        """
        if self._info.kind is RowKind.UNDECIDED:
            self._fix(RowKind.BYTES, b"")
        self._check(RowKind.BYTES)

    def bind_schema(self, rows: pa.RecordBatch | pa.Table) -> pa.Schema:
        """Bind the exchange to the types of these rows as far as it is not bound.

        Another writer may be faster. Then this one looks at what that one made of it.

        Returns: the exchange's schema. Raises: SchemaMismatch or InvalidRow where the rows do not
        go into it, before anybody is bound.
        """
        try:
            return self._bind_schema(rows)
        except CoscoError as error:
            error.place(self._info.spec.shuffle_id)
            raise

    def _bind_schema(self, rows: pa.RecordBatch | pa.Table) -> pa.Schema:
        found = rows.schema
        if self._info.kind is RowKind.UNDECIDED:
            message = binding_schema(found)
            transport(normalize_schema(found))  # refuses what cannot be shuffled
            conversion(found, schema_from_bytes(message), strict=True).check(rows)
            self._fix(RowKind.ARROW, message)
        # Each turn but the last one another writer has given a type to a column without one.
        for _ in range(_MAX_TURNS):
            self._check(RowKind.ARROW)
            schema = self._present()
            finer = refined(schema, found) if self._may_refine else None
            wanted = schema if finer is None else schema_from_bytes(finer)
            conversion(found, wanted, strict=True).check(rows)
            if finer is None:
                return schema
            transport(normalize_schema(wanted))
            self._fix(RowKind.ARROW, finer)
        raise SchemaMismatch("other writers change the types of its columns without end")

    def _present(self) -> pa.Schema:
        """Return the schema that was seen last: one object as long as it is the same message."""
        message = self._info.schema
        if self._parsed is None or self._parsed[0] != message:
            self._parsed = message, schema_from_bytes(message)
        return self._parsed[1]

    def _fix(self, kind: RowKind, schema: bytes) -> None:
        seen = self._info.schema
        self._info = self._metadata.fix_row_kind(self._info.number, kind, schema, seen=seen)

    def _check(self, kind: RowKind) -> None:
        info = self._info
        if info.kind is not kind:
            if info.kind is RowKind.OPAQUE:
                remedy = "it is of an engine, whose own tasks alone write to it"
            elif info.kind is RowKind.ARROW:
                remedy = "give collect_batch a RecordBatch, a Table or a data frame"
            elif not self._may_refine:
                remedy = "its group was made without schema=: give it one, or give bytes"
            else:
                remedy = "give collect_batch bytes"
            raise SchemaMismatch(
                f"it carries {info.kind.name} rows, not {kind.name} rows: {remedy}"
            ).place(info.spec.shuffle_id)
