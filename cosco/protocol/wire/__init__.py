"""Records to protobuf and back: the only package that knows the generated types.

`wire.to_pb(record)` gives the message of a record, and `wire.from_pb(Record, message)` the
record of a message. Decoding checks what cannot be left to luck (lengths of parallel arrays, ids
in range) and raises InvalidArgument; whoever serves the call turns that into a refusal. Which
file of the package has what is its own affair.
"""

from __future__ import annotations

from cosco.protocol.pb import metadata_pb2 as mpb
from cosco.protocol.pb import shuffle_pb2 as spb
from cosco.protocol.wire.arrays import bitmap_array, bitmap_from_bytes, partitions_from_bytes
from cosco.protocol.wire.bulk import (
    push_reply_from_bytes,
    push_reply_to_bytes,
    push_request_from_bytes,
    push_request_to_bytes,
)
from cosco.protocol.wire.error_detail import (
    ERROR_KEY,
    MAX_ERROR_BYTES,
    MAX_ERROR_MAPPERS,
    error_from_bytes,
    error_line,
    error_to_bytes,
)
from cosco.protocol.wire.fetches import (
    MAX_FETCH_PARTITIONS,
    MAX_FETCH_PARTS,
    FetchReply,
    fetch_data,
    fetch_end,
    fetch_failure,
    fetch_packed,
    fetch_reference,
    fetch_replies,
    fetch_reply,
    fetch_request_from_bytes,
    fetch_request_to_bytes,
    fetch_section,
    reference_of,
)
from cosco.protocol.wire.follows import (
    MAX_FOLLOWS,
    followed_from_bytes,
    followed_to_bytes,
    follows_from_bytes,
    follows_to_bytes,
)
from cosco.protocol.wire.metadata_messages import fixed_kind, found_assignment, limits_of
from cosco.protocol.wire.methods import (
    MAX_METADATA_MESSAGE_BYTES,
    METADATA_METHODS,
    METADATA_SERVICE,
    SHUFFLE_SERVICE,
    request_parser,
    say_protocol,
)
from cosco.protocol.wire.packed import (
    MAX_RANGES_BYTES,
    commits_field,
    opened_info,
    opened_reply,
    ranges_reply,
    snapshot_mappers,
    wait_reply,
)
from cosco.protocol.wire.plain import from_pb, to_pb
