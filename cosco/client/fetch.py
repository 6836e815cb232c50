"""One look of one daemon at a partition, as runs of whole blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from google.protobuf.message import DecodeError

from cosco import wire
from cosco.client.merge import BlockSplitter
from cosco.client.scope import Scope, Unreachable
from cosco.client.transport import Endpoint
from cosco.errors import DataCorrupted, InvalidArgument
from cosco.records import Source
from cosco.wire import spb

_PATH: Final = f"/{wire.SHUFFLE_SERVICE}/Fetch"


def fetch_blocks(
    endpoint: Endpoint,
    scope: Scope,
    number: int,
    source: Source,
    partition: int,
    bad: Callable[[str], None],
) -> Iterator[memoryview]:
    """Yield what the daemon at `endpoint` has of `source`, chunk by chunk.

    A chunk that it cannot read, or whose blocks do not parse, is told to `bad` and passed
    over. Raises Unreachable, or the CoscoError that the daemon meant.
    """
    request = spb.FetchRequest(
        number=number,
        range_index=source.range_index,
        epoch=source.epoch,
        partition=partition,
    )
    call = endpoint.fetch_stream(_PATH, request.SerializeToString(), scope)
    try:
        yield from runs_of(map(_reply, call), bad)
    except (DecodeError, InvalidArgument) as error:
        raise Unreachable(f"the daemon at {endpoint.address} sent nonsense: {error}") from None
    finally:
        call.cancel()


def _reply(message: bytes) -> memoryview | spb.Section:
    return wire.fetch_reply(message)


def runs_of(
    replies: Iterator[memoryview | spb.Section], bad: Callable[[str], None]
) -> Iterator[memoryview]:
    """Yield runs of whole blocks from the replies of one Fetch; raises InvalidArgument when
    sections and data do not follow each other as they must."""
    left = 0
    splitter: BlockSplitter | None = None  # None: what is left of the section is skipped
    for reply in replies:
        if isinstance(reply, spb.Section):
            if left:
                raise InvalidArgument(f"a section begins {left} bytes before the last one ends")
            splitter = BlockSplitter()
            if reply.error:
                bad(" ".join(reply.error.split())[:300])
            else:
                left = reply.body_bytes
            continue
        if len(reply) > left:
            raise InvalidArgument(f"{len(reply)} bytes of data where {left} are left")
        left -= len(reply)
        if splitter is None:
            continue
        try:
            yield from splitter.feed(reply)
            if not left:
                splitter.finish()
        except DataCorrupted as error:
            bad(str(error))
            splitter = None
    if left:
        raise InvalidArgument(f"the stream ended {left} bytes before its section does")
