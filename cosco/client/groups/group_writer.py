"""The writer of a group's exchange: its attempt is its own, and its rows are readable at once."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from cosco.client.content.arrow import schema_from_bytes
from cosco.client.groups.committer import COMMITTERS
from cosco.client.write.state.packing import PackedFrame
from cosco.client.write.writer import CoscoWriter
from cosco.protocol.group_records import member_name
from cosco.protocol.records import FIRST_OWN_ATTEMPT, CommitRequest, OpenedAttempt, RowKind

if TYPE_CHECKING:
    from cosco.client.groups.handle import GroupHandle

#: Of a writer, if it is not told: micro-batches are small.
BUFFER_BYTES: Final = 4 << 20


class GroupWriter(CoscoWriter):
    """A `CoscoWriter` of one exchange of a group; asks nobody where its rows go.

    It ends its rows with marks (`cosco.protocol.mark`), on which waiting readers are given them.
    When `close` returns every copy has them; the commit follows a moment later, with those of other
    writers of the process (`GroupHandle.flush` waits for it), so that `won` is true as far as is
    known: it may turn out that another attempt of the mapper was first.
    """

    def __init__(
        self, handle: GroupHandle, index: int, mapper: int, *, buffer_bytes: int = BUFFER_BYTES
    ) -> None:
        """See `GroupHandle.writer`."""
        self._handle = handle
        self._index = index
        super().__init__(
            member_name(handle.group_id, index),
            mapper,
            buffer_bytes=buffer_bytes,
            metadata=handle.metadata,
            service_timeout_s=handle.service_timeout_s,
        )

    def _open(self, mapper: int | None) -> OpenedAttempt:
        assert mapper is not None  # as the handle has checked
        self._metadata.set_met()  # by who gave the handle: an outage is waited for
        attempt = FIRST_OWN_ATTEMPT | secrets.randbits(63)
        return OpenedAttempt(self._handle.info(self._index), mapper, attempt)

    def _last_frames(self) -> Iterator[PackedFrame]:
        info = self._opened.info
        if self._packer is not None:
            packer = self._packer
        elif info.kind is RowKind.ARROW:
            packer = self._arrow_packer(schema_from_bytes(info.schema))
        else:
            packer = self._row_packer()
        return packer.drain(marks=True)

    def _count(self, commit: CommitRequest) -> bool:
        COMMITTERS.of(self._handle.metadata, self._handle.service_timeout_s).add(commit)
        return True
