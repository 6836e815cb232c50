"""Records to protobuf and back: the only package that knows the generated types.

Decoding a message checks what cannot be left to luck (lengths of parallel arrays, ids in
range) and raises InvalidArgument; whoever serves the call turns that into a refusal. Callers
say `wire.commit_to_pb`; which file of the package has it is the package's own affair.
"""

from __future__ import annotations

from cosco.protocol.pb import metadata_pb2 as mpb
from cosco.protocol.pb import shuffle_pb2 as spb
from cosco.protocol.wire.arrays import (
    bitmap_from_bytes,
)
from cosco.protocol.wire.attempt_records import (
    commit_from_pb,
    commit_to_pb,
    opened_from_pb,
    opened_info,
    opened_reply,
    renewed_from_pb,
    renewed_to_pb,
)
from cosco.protocol.wire.bulk import (
    PushedFrame,
    eager_frame,
    fetch_data,
    fetch_reply,
    fetch_request,
    opening,
    push_frame,
    push_request,
)
from cosco.protocol.wire.daemons import (
    daemon_status_from_pb,
    daemon_status_to_pb,
    heartbeat_from_pb,
    heartbeat_to_pb,
    orders_from_pb,
    orders_to_pb,
    ref_from_pb,
    ref_to_pb,
    registration_from_pb,
    registration_to_pb,
)
from cosco.protocol.wire.error_detail import (
    ERROR_KEY,
    MAX_ERROR_BYTES,
    MAX_ERROR_MAPPERS,
    error_from_bytes,
    error_to_bytes,
)
from cosco.protocol.wire.exchanges import (
    assignment_from_pb,
    assignment_to_pb,
    driver_orders_from_pb,
    driver_orders_to_pb,
    exchange_status_from_pb,
    exchange_status_to_pb,
    info_from_pb,
    info_to_pb,
    kind_from_pb,
    progress_from_pb,
    progress_to_pb,
    range_from_pb,
    range_to_pb,
    spec_from_pb,
    spec_to_pb,
)
from cosco.protocol.wire.groups import (
    MAX_FOLLOWS,
    commit_result_from_pb,
    commit_result_to_pb,
    followed_from_bytes,
    followed_to_bytes,
    follows_from_bytes,
    follows_to_bytes,
    found_assignment_from_pb,
    found_assignment_to_pb,
    group_answer_from_pb,
    group_answer_to_pb,
    group_block_from_pb,
    group_block_to_pb,
    group_call_from_pb,
    group_call_to_pb,
)
from cosco.protocol.wire.methods import (
    MAX_METADATA_MESSAGE_BYTES,
    METADATA_METHODS,
    METADATA_SERVICE,
    PUSH_PROTOCOL,
    SHUFFLE_SERVICE,
)
from cosco.protocol.wire.reads import (
    loss_from_pb,
    loss_to_pb,
    snapshot_from_pb,
    snapshot_mappers,
    wait_from_pb,
    wait_reply,
)
