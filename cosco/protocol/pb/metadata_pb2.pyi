from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RowKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROW_KIND_UNDECIDED: _ClassVar[RowKind]
    ROW_KIND_BYTES: _ClassVar[RowKind]
    ROW_KIND_ARROW: _ClassVar[RowKind]
    ROW_KIND_OPAQUE: _ClassVar[RowKind]

class LossCause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOSS_CAUSE_UNSPECIFIED: _ClassVar[LossCause]
    LOSS_CAUSE_GONE: _ClassVar[LossCause]
    LOSS_CAUSE_MISSING: _ClassVar[LossCause]

class DaemonState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DAEMON_STATE_UNSPECIFIED: _ClassVar[DaemonState]
    DAEMON_STATE_SERVING: _ClassVar[DaemonState]
    DAEMON_STATE_DRAINING: _ClassVar[DaemonState]
    DAEMON_STATE_DEAD: _ClassVar[DaemonState]

class ExchangePhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXCHANGE_PHASE_UNSPECIFIED: _ClassVar[ExchangePhase]
    EXCHANGE_PHASE_OPEN: _ClassVar[ExchangePhase]
    EXCHANGE_PHASE_CLOSING: _ClassVar[ExchangePhase]
    EXCHANGE_PHASE_FINISHED: _ClassVar[ExchangePhase]

class LossState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOSS_STATE_UNSPECIFIED: _ClassVar[LossState]
    LOSS_STATE_OPEN: _ClassVar[LossState]
    LOSS_STATE_ARRANGED: _ClassVar[LossState]
    LOSS_STATE_FAILED: _ClassVar[LossState]
ROW_KIND_UNDECIDED: RowKind
ROW_KIND_BYTES: RowKind
ROW_KIND_ARROW: RowKind
ROW_KIND_OPAQUE: RowKind
LOSS_CAUSE_UNSPECIFIED: LossCause
LOSS_CAUSE_GONE: LossCause
LOSS_CAUSE_MISSING: LossCause
DAEMON_STATE_UNSPECIFIED: DaemonState
DAEMON_STATE_SERVING: DaemonState
DAEMON_STATE_DRAINING: DaemonState
DAEMON_STATE_DEAD: DaemonState
EXCHANGE_PHASE_UNSPECIFIED: ExchangePhase
EXCHANGE_PHASE_OPEN: ExchangePhase
EXCHANGE_PHASE_CLOSING: ExchangePhase
EXCHANGE_PHASE_FINISHED: ExchangePhase
LOSS_STATE_UNSPECIFIED: LossState
LOSS_STATE_OPEN: LossState
LOSS_STATE_ARRANGED: LossState
LOSS_STATE_FAILED: LossState

class ErrorDetail(_message.Message):
    __slots__ = ("kind", "message", "shuffle_id", "mappers", "partition", "retriable")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SHUFFLE_ID_FIELD_NUMBER: _ClassVar[int]
    MAPPERS_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    RETRIABLE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    message: str
    shuffle_id: str
    mappers: _containers.RepeatedScalarFieldContainer[int]
    partition: int
    retriable: bool
    def __init__(self, kind: _Optional[str] = ..., message: _Optional[str] = ..., shuffle_id: _Optional[str] = ..., mappers: _Optional[_Iterable[int]] = ..., partition: _Optional[int] = ..., retriable: bool = ...) -> None: ...

class DaemonRef(_message.Message):
    __slots__ = ("incarnation", "address")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    incarnation: int
    address: str
    def __init__(self, incarnation: _Optional[int] = ..., address: _Optional[str] = ...) -> None: ...

class RegisterDaemonRequest(_message.Message):
    __slots__ = ("incarnation", "address", "host_id", "store_id", "memory_bytes", "free_bytes", "metrics_address", "exchanges", "draining", "protocol")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    HOST_ID_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    METRICS_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    EXCHANGES_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    incarnation: int
    address: str
    host_id: str
    store_id: str
    memory_bytes: int
    free_bytes: int
    metrics_address: str
    exchanges: _containers.RepeatedScalarFieldContainer[int]
    draining: bool
    protocol: int
    def __init__(self, incarnation: _Optional[int] = ..., address: _Optional[str] = ..., host_id: _Optional[str] = ..., store_id: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., free_bytes: _Optional[int] = ..., metrics_address: _Optional[str] = ..., exchanges: _Optional[_Iterable[int]] = ..., draining: bool = ..., protocol: _Optional[int] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("incarnation", "free_bytes", "dropped", "draining", "store_failing", "exchanges", "unstored_bytes", "store_hangs", "epochs_dropped", "mechanics", "stored", "figures", "version")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    STORE_FAILING_FIELD_NUMBER: _ClassVar[int]
    EXCHANGES_FIELD_NUMBER: _ClassVar[int]
    UNSTORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    STORE_HANGS_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_DROPPED_FIELD_NUMBER: _ClassVar[int]
    MECHANICS_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    incarnation: int
    free_bytes: int
    dropped: _containers.RepeatedScalarFieldContainer[int]
    draining: bool
    store_failing: bool
    exchanges: _containers.RepeatedScalarFieldContainer[int]
    unstored_bytes: int
    store_hangs: bool
    epochs_dropped: _containers.RepeatedCompositeFieldContainer[EpochsDropped]
    mechanics: str
    stored: _containers.RepeatedCompositeFieldContainer[StoredBytes]
    figures: DaemonFigures
    version: str
    def __init__(self, incarnation: _Optional[int] = ..., free_bytes: _Optional[int] = ..., dropped: _Optional[_Iterable[int]] = ..., draining: bool = ..., store_failing: bool = ..., exchanges: _Optional[_Iterable[int]] = ..., unstored_bytes: _Optional[int] = ..., store_hangs: bool = ..., epochs_dropped: _Optional[_Iterable[_Union[EpochsDropped, _Mapping]]] = ..., mechanics: _Optional[str] = ..., stored: _Optional[_Iterable[_Union[StoredBytes, _Mapping]]] = ..., figures: _Optional[_Union[DaemonFigures, _Mapping]] = ..., version: _Optional[str] = ...) -> None: ...

class DaemonFigures(_message.Message):
    __slots__ = ("bytes_received", "blocks_received", "duplicates_dropped", "bytes_stored", "bytes_fetched", "bytes_referenced", "flush_failures", "writes", "write_bytes", "write_s", "reads", "read_bytes", "read_s", "waited_s", "pages_used_bytes", "copies_bytes", "waiting_bytes", "granted_bytes", "push_streams", "fetch_streams", "followers", "rows_received", "rows_fetched")
    BYTES_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_DROPPED_FIELD_NUMBER: _ClassVar[int]
    BYTES_STORED_FIELD_NUMBER: _ClassVar[int]
    BYTES_FETCHED_FIELD_NUMBER: _ClassVar[int]
    BYTES_REFERENCED_FIELD_NUMBER: _ClassVar[int]
    FLUSH_FAILURES_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    WRITE_BYTES_FIELD_NUMBER: _ClassVar[int]
    WRITE_S_FIELD_NUMBER: _ClassVar[int]
    READS_FIELD_NUMBER: _ClassVar[int]
    READ_BYTES_FIELD_NUMBER: _ClassVar[int]
    READ_S_FIELD_NUMBER: _ClassVar[int]
    WAITED_S_FIELD_NUMBER: _ClassVar[int]
    PAGES_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    COPIES_BYTES_FIELD_NUMBER: _ClassVar[int]
    WAITING_BYTES_FIELD_NUMBER: _ClassVar[int]
    GRANTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PUSH_STREAMS_FIELD_NUMBER: _ClassVar[int]
    FETCH_STREAMS_FIELD_NUMBER: _ClassVar[int]
    FOLLOWERS_FIELD_NUMBER: _ClassVar[int]
    ROWS_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    ROWS_FETCHED_FIELD_NUMBER: _ClassVar[int]
    bytes_received: int
    blocks_received: int
    duplicates_dropped: int
    bytes_stored: int
    bytes_fetched: int
    bytes_referenced: int
    flush_failures: int
    writes: int
    write_bytes: int
    write_s: float
    reads: int
    read_bytes: int
    read_s: float
    waited_s: float
    pages_used_bytes: int
    copies_bytes: int
    waiting_bytes: int
    granted_bytes: int
    push_streams: int
    fetch_streams: int
    followers: int
    rows_received: int
    rows_fetched: int
    def __init__(self, bytes_received: _Optional[int] = ..., blocks_received: _Optional[int] = ..., duplicates_dropped: _Optional[int] = ..., bytes_stored: _Optional[int] = ..., bytes_fetched: _Optional[int] = ..., bytes_referenced: _Optional[int] = ..., flush_failures: _Optional[int] = ..., writes: _Optional[int] = ..., write_bytes: _Optional[int] = ..., write_s: _Optional[float] = ..., reads: _Optional[int] = ..., read_bytes: _Optional[int] = ..., read_s: _Optional[float] = ..., waited_s: _Optional[float] = ..., pages_used_bytes: _Optional[int] = ..., copies_bytes: _Optional[int] = ..., waiting_bytes: _Optional[int] = ..., granted_bytes: _Optional[int] = ..., push_streams: _Optional[int] = ..., fetch_streams: _Optional[int] = ..., followers: _Optional[int] = ..., rows_received: _Optional[int] = ..., rows_fetched: _Optional[int] = ...) -> None: ...

class StoredBytes(_message.Message):
    __slots__ = ("number", "stored_bytes")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    number: int
    stored_bytes: int
    def __init__(self, number: _Optional[int] = ..., stored_bytes: _Optional[int] = ...) -> None: ...

class EpochsDropped(_message.Message):
    __slots__ = ("number", "sequence")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    number: int
    sequence: int
    def __init__(self, number: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class EpochsDrop(_message.Message):
    __slots__ = ("number", "range_index", "before", "sequence")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    RANGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    number: int
    range_index: int
    before: int
    sequence: int
    def __init__(self, number: _Optional[int] = ..., range_index: _Optional[int] = ..., before: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class DaemonOrdersReply(_message.Message):
    __slots__ = ("known", "cluster_id", "lease_s", "drop", "drain", "may_exit", "was_forgotten", "epochs_drop", "keys", "full_tenants")
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_S_FIELD_NUMBER: _ClassVar[int]
    DROP_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    MAY_EXIT_FIELD_NUMBER: _ClassVar[int]
    WAS_FORGOTTEN_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_DROP_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    FULL_TENANTS_FIELD_NUMBER: _ClassVar[int]
    known: bool
    cluster_id: str
    lease_s: float
    drop: _containers.RepeatedScalarFieldContainer[int]
    drain: bool
    may_exit: bool
    was_forgotten: bool
    epochs_drop: _containers.RepeatedCompositeFieldContainer[EpochsDrop]
    keys: _containers.RepeatedCompositeFieldContainer[CapabilityKey]
    full_tenants: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, known: bool = ..., cluster_id: _Optional[str] = ..., lease_s: _Optional[float] = ..., drop: _Optional[_Iterable[int]] = ..., drain: bool = ..., may_exit: bool = ..., was_forgotten: bool = ..., epochs_drop: _Optional[_Iterable[_Union[EpochsDrop, _Mapping]]] = ..., keys: _Optional[_Iterable[_Union[CapabilityKey, _Mapping]]] = ..., full_tenants: _Optional[_Iterable[int]] = ...) -> None: ...

class CapabilityKey(_message.Message):
    __slots__ = ("id", "secret")
    ID_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    id: int
    secret: bytes
    def __init__(self, id: _Optional[int] = ..., secret: _Optional[bytes] = ...) -> None: ...

class ReportDaemonRequest(_message.Message):
    __slots__ = ("daemon", "reporter", "insist")
    DAEMON_FIELD_NUMBER: _ClassVar[int]
    REPORTER_FIELD_NUMBER: _ClassVar[int]
    INSIST_FIELD_NUMBER: _ClassVar[int]
    daemon: DaemonRef
    reporter: int
    insist: bool
    def __init__(self, daemon: _Optional[_Union[DaemonRef, _Mapping]] = ..., reporter: _Optional[int] = ..., insist: bool = ...) -> None: ...

class ReportDaemonReply(_message.Message):
    __slots__ = ("alive",)
    ALIVE_FIELD_NUMBER: _ClassVar[int]
    alive: bool
    def __init__(self, alive: bool = ...) -> None: ...

class DrainDaemonRequest(_message.Message):
    __slots__ = ("daemon",)
    DAEMON_FIELD_NUMBER: _ClassVar[int]
    daemon: str
    def __init__(self, daemon: _Optional[str] = ...) -> None: ...

class DrainDaemonReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UndrainDaemonRequest(_message.Message):
    __slots__ = ("daemon",)
    DAEMON_FIELD_NUMBER: _ClassVar[int]
    daemon: str
    def __init__(self, daemon: _Optional[str] = ...) -> None: ...

class UndrainDaemonReply(_message.Message):
    __slots__ = ("was_draining",)
    WAS_DRAINING_FIELD_NUMBER: _ClassVar[int]
    was_draining: bool
    def __init__(self, was_draining: bool = ...) -> None: ...

class ForgetStoreRequest(_message.Message):
    __slots__ = ("store_id",)
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    store_id: str
    def __init__(self, store_id: _Optional[str] = ...) -> None: ...

class ForgetStoreReply(_message.Message):
    __slots__ = ("closed", "ranges", "doubtful", "exchanges")
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    DOUBTFUL_FIELD_NUMBER: _ClassVar[int]
    EXCHANGES_FIELD_NUMBER: _ClassVar[int]
    closed: int
    ranges: int
    doubtful: int
    exchanges: int
    def __init__(self, closed: _Optional[int] = ..., ranges: _Optional[int] = ..., doubtful: _Optional[int] = ..., exchanges: _Optional[int] = ...) -> None: ...

class LookupAssignmentRequest(_message.Message):
    __slots__ = ("number", "range_index", "epoch", "incarnation")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    RANGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    number: int
    range_index: int
    epoch: int
    incarnation: int
    def __init__(self, number: _Optional[int] = ..., range_index: _Optional[int] = ..., epoch: _Optional[int] = ..., incarnation: _Optional[int] = ...) -> None: ...

class LookupAssignmentReply(_message.Message):
    __slots__ = ("assignment", "partition_range", "mappers", "alike", "tenant", "trace")
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    PARTITION_RANGE_FIELD_NUMBER: _ClassVar[int]
    MAPPERS_FIELD_NUMBER: _ClassVar[int]
    ALIKE_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    assignment: Assignment
    partition_range: PartitionRange
    mappers: int
    alike: Alike
    tenant: int
    trace: str
    def __init__(self, assignment: _Optional[_Union[Assignment, _Mapping]] = ..., partition_range: _Optional[_Union[PartitionRange, _Mapping]] = ..., mappers: _Optional[int] = ..., alike: _Optional[_Union[Alike, _Mapping]] = ..., tenant: _Optional[int] = ..., trace: _Optional[str] = ...) -> None: ...

class Alike(_message.Message):
    __slots__ = ("first_number", "size", "without")
    FIRST_NUMBER_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_FIELD_NUMBER: _ClassVar[int]
    first_number: int
    size: int
    without: bytes
    def __init__(self, first_number: _Optional[int] = ..., size: _Optional[int] = ..., without: _Optional[bytes] = ...) -> None: ...

class ExchangeSpec(_message.Message):
    __slots__ = ("shuffle_id", "partitions", "replicas", "min_replicas", "codec", "deterministic", "lease_s", "schema", "mappers", "direct_reads", "trace")
    SHUFFLE_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    MIN_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    DETERMINISTIC_FIELD_NUMBER: _ClassVar[int]
    LEASE_S_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    MAPPERS_FIELD_NUMBER: _ClassVar[int]
    DIRECT_READS_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    shuffle_id: str
    partitions: int
    replicas: int
    min_replicas: int
    codec: str
    deterministic: bool
    lease_s: float
    schema: bytes
    mappers: int
    direct_reads: bool
    trace: str
    def __init__(self, shuffle_id: _Optional[str] = ..., partitions: _Optional[int] = ..., replicas: _Optional[int] = ..., min_replicas: _Optional[int] = ..., codec: _Optional[str] = ..., deterministic: bool = ..., lease_s: _Optional[float] = ..., schema: _Optional[bytes] = ..., mappers: _Optional[int] = ..., direct_reads: bool = ..., trace: _Optional[str] = ...) -> None: ...

class PartitionRange(_message.Message):
    __slots__ = ("index", "first", "count")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    index: int
    first: int
    count: int
    def __init__(self, index: _Optional[int] = ..., first: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("range_index", "epoch", "build", "primary", "replicas", "sealed")
    RANGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    BUILD_FIELD_NUMBER: _ClassVar[int]
    PRIMARY_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    range_index: int
    epoch: int
    build: int
    primary: DaemonRef
    replicas: _containers.RepeatedCompositeFieldContainer[DaemonRef]
    sealed: bool
    def __init__(self, range_index: _Optional[int] = ..., epoch: _Optional[int] = ..., build: _Optional[int] = ..., primary: _Optional[_Union[DaemonRef, _Mapping]] = ..., replicas: _Optional[_Iterable[_Union[DaemonRef, _Mapping]]] = ..., sealed: bool = ...) -> None: ...

class ExchangeInfoReply(_message.Message):
    __slots__ = ("number", "spec", "generation", "kind", "schema", "ranges", "assignments", "commits", "capability")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    number: int
    spec: ExchangeSpec
    generation: int
    kind: RowKind
    schema: bytes
    ranges: _containers.RepeatedCompositeFieldContainer[PartitionRange]
    assignments: _containers.RepeatedCompositeFieldContainer[Assignment]
    commits: AwaitCommitsReply
    capability: str
    def __init__(self, number: _Optional[int] = ..., spec: _Optional[_Union[ExchangeSpec, _Mapping]] = ..., generation: _Optional[int] = ..., kind: _Optional[_Union[RowKind, str]] = ..., schema: _Optional[bytes] = ..., ranges: _Optional[_Iterable[_Union[PartitionRange, _Mapping]]] = ..., assignments: _Optional[_Iterable[_Union[Assignment, _Mapping]]] = ..., commits: _Optional[_Union[AwaitCommitsReply, _Mapping]] = ..., capability: _Optional[str] = ...) -> None: ...

class CreateExchangeRequest(_message.Message):
    __slots__ = ("spec", "owner", "callback", "application_id", "protocol")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    CALLBACK_FIELD_NUMBER: _ClassVar[int]
    APPLICATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    spec: ExchangeSpec
    owner: bytes
    callback: bool
    application_id: str
    protocol: int
    def __init__(self, spec: _Optional[_Union[ExchangeSpec, _Mapping]] = ..., owner: _Optional[bytes] = ..., callback: bool = ..., application_id: _Optional[str] = ..., protocol: _Optional[int] = ...) -> None: ...

class MakeCapabilityRequest(_message.Message):
    __slots__ = ("number", "group_id", "first", "read", "write", "lives_s")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    READ_FIELD_NUMBER: _ClassVar[int]
    WRITE_FIELD_NUMBER: _ClassVar[int]
    LIVES_S_FIELD_NUMBER: _ClassVar[int]
    number: int
    group_id: str
    first: int
    read: bool
    write: bool
    lives_s: float
    def __init__(self, number: _Optional[int] = ..., group_id: _Optional[str] = ..., first: _Optional[int] = ..., read: bool = ..., write: bool = ..., lives_s: _Optional[float] = ...) -> None: ...

class MakeCapabilityReply(_message.Message):
    __slots__ = ("capability",)
    CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    capability: str
    def __init__(self, capability: _Optional[str] = ...) -> None: ...

class DescribeExchangeRequest(_message.Message):
    __slots__ = ("shuffle_id", "owner", "callback", "reading", "protocol")
    SHUFFLE_ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    CALLBACK_FIELD_NUMBER: _ClassVar[int]
    READING_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    shuffle_id: str
    owner: bytes
    callback: bool
    reading: AwaitCommitsRequest
    protocol: int
    def __init__(self, shuffle_id: _Optional[str] = ..., owner: _Optional[bytes] = ..., callback: bool = ..., reading: _Optional[_Union[AwaitCommitsRequest, _Mapping]] = ..., protocol: _Optional[int] = ...) -> None: ...

class PollDriverRequest(_message.Message):
    __slots__ = ("number", "owner", "wait_s", "arranged", "failed")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    ARRANGED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    number: int
    owner: bytes
    wait_s: float
    arranged: _containers.RepeatedScalarFieldContainer[int]
    failed: _containers.RepeatedCompositeFieldContainer[RecomputeFailure]
    def __init__(self, number: _Optional[int] = ..., owner: _Optional[bytes] = ..., wait_s: _Optional[float] = ..., arranged: _Optional[_Iterable[int]] = ..., failed: _Optional[_Iterable[_Union[RecomputeFailure, _Mapping]]] = ...) -> None: ...

class RecomputeFailure(_message.Message):
    __slots__ = ("loss_id", "reason")
    LOSS_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    loss_id: int
    reason: str
    def __init__(self, loss_id: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class PollDriverReply(_message.Message):
    __slots__ = ("calls",)
    CALLS_FIELD_NUMBER: _ClassVar[int]
    calls: _containers.RepeatedCompositeFieldContainer[RecomputeCall]
    def __init__(self, calls: _Optional[_Iterable[_Union[RecomputeCall, _Mapping]]] = ...) -> None: ...

class RecomputeCall(_message.Message):
    __slots__ = ("loss_id", "mappers", "reason")
    LOSS_ID_FIELD_NUMBER: _ClassVar[int]
    MAPPERS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    loss_id: int
    mappers: bytes
    reason: str
    def __init__(self, loss_id: _Optional[int] = ..., mappers: _Optional[bytes] = ..., reason: _Optional[str] = ...) -> None: ...

class CloseExchangeRequest(_message.Message):
    __slots__ = ("shuffle_id", "owner")
    SHUFFLE_ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    shuffle_id: str
    owner: bytes
    def __init__(self, shuffle_id: _Optional[str] = ..., owner: _Optional[bytes] = ...) -> None: ...

class CloseExchangeReply(_message.Message):
    __slots__ = ("was_open",)
    WAS_OPEN_FIELD_NUMBER: _ClassVar[int]
    was_open: bool
    def __init__(self, was_open: bool = ...) -> None: ...

class ProgressRequest(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class ProgressReply(_message.Message):
    __slots__ = ("mappers_committed", "rows", "bytes_raw", "bytes_stored", "partition_rows", "partition_bytes", "replicas")
    MAPPERS_COMMITTED_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    BYTES_RAW_FIELD_NUMBER: _ClassVar[int]
    BYTES_STORED_FIELD_NUMBER: _ClassVar[int]
    PARTITION_ROWS_FIELD_NUMBER: _ClassVar[int]
    PARTITION_BYTES_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    mappers_committed: int
    rows: int
    bytes_raw: int
    bytes_stored: int
    partition_rows: bytes
    partition_bytes: bytes
    replicas: int
    def __init__(self, mappers_committed: _Optional[int] = ..., rows: _Optional[int] = ..., bytes_raw: _Optional[int] = ..., bytes_stored: _Optional[int] = ..., partition_rows: _Optional[bytes] = ..., partition_bytes: _Optional[bytes] = ..., replicas: _Optional[int] = ...) -> None: ...

class OpenAttemptRequest(_message.Message):
    __slots__ = ("shuffle_id", "mapper", "protocol")
    SHUFFLE_ID_FIELD_NUMBER: _ClassVar[int]
    MAPPER_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    shuffle_id: str
    mapper: int
    protocol: int
    def __init__(self, shuffle_id: _Optional[str] = ..., mapper: _Optional[int] = ..., protocol: _Optional[int] = ...) -> None: ...

class OpenAttemptReply(_message.Message):
    __slots__ = ("info", "mapper", "attempt", "partial", "ranges")
    INFO_FIELD_NUMBER: _ClassVar[int]
    MAPPER_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    info: ExchangeInfoReply
    mapper: int
    attempt: int
    partial: bool
    ranges: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, info: _Optional[_Union[ExchangeInfoReply, _Mapping]] = ..., mapper: _Optional[int] = ..., attempt: _Optional[int] = ..., partial: bool = ..., ranges: _Optional[_Iterable[int]] = ...) -> None: ...

class RenewAssignmentsRequest(_message.Message):
    __slots__ = ("number", "generation", "stale", "suspect", "insist", "wait_s")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    SUSPECT_FIELD_NUMBER: _ClassVar[int]
    INSIST_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    number: int
    generation: int
    stale: _containers.RepeatedCompositeFieldContainer[RangeEpoch]
    suspect: DaemonRef
    insist: bool
    wait_s: float
    def __init__(self, number: _Optional[int] = ..., generation: _Optional[int] = ..., stale: _Optional[_Iterable[_Union[RangeEpoch, _Mapping]]] = ..., suspect: _Optional[_Union[DaemonRef, _Mapping]] = ..., insist: bool = ..., wait_s: _Optional[float] = ...) -> None: ...

class RenewAssignmentsReply(_message.Message):
    __slots__ = ("assignments", "alive", "waiting_for")
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    ALIVE_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    assignments: _containers.RepeatedCompositeFieldContainer[Assignment]
    alive: bool
    waiting_for: str
    def __init__(self, assignments: _Optional[_Iterable[_Union[Assignment, _Mapping]]] = ..., alive: bool = ..., waiting_for: _Optional[str] = ...) -> None: ...

class FixRowKindRequest(_message.Message):
    __slots__ = ("number", "kind", "schema", "seen")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    number: int
    kind: RowKind
    schema: bytes
    seen: bytes
    def __init__(self, number: _Optional[int] = ..., kind: _Optional[_Union[RowKind, str]] = ..., schema: _Optional[bytes] = ..., seen: _Optional[bytes] = ...) -> None: ...

class CommitRequest(_message.Message):
    __slots__ = ("number", "mapper", "attempt", "generation", "acknowledged", "gaps", "rows", "raw_bytes", "stored_bytes", "digests", "partial", "ranges")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    MAPPER_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    GAPS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    RAW_BYTES_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    number: int
    mapper: int
    attempt: int
    generation: int
    acknowledged: bytes
    gaps: bytes
    rows: bytes
    raw_bytes: bytes
    stored_bytes: bytes
    digests: bytes
    partial: bool
    ranges: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, number: _Optional[int] = ..., mapper: _Optional[int] = ..., attempt: _Optional[int] = ..., generation: _Optional[int] = ..., acknowledged: _Optional[bytes] = ..., gaps: _Optional[bytes] = ..., rows: _Optional[bytes] = ..., raw_bytes: _Optional[bytes] = ..., stored_bytes: _Optional[bytes] = ..., digests: _Optional[bytes] = ..., partial: bool = ..., ranges: _Optional[_Iterable[int]] = ...) -> None: ...

class RangeEpoch(_message.Message):
    __slots__ = ("range_index", "epoch")
    RANGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    range_index: int
    epoch: int
    def __init__(self, range_index: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class CommitReply(_message.Message):
    __slots__ = ("won",)
    WON_FIELD_NUMBER: _ClassVar[int]
    won: bool
    def __init__(self, won: bool = ...) -> None: ...

class AwaitCommitsRequest(_message.Message):
    __slots__ = ("number", "mappers", "partition", "generation", "wait_s", "partitions")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    MAPPERS_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    number: int
    mappers: bytes
    partition: int
    generation: int
    wait_s: float
    partitions: bytes
    def __init__(self, number: _Optional[int] = ..., mappers: _Optional[bytes] = ..., partition: _Optional[int] = ..., generation: _Optional[int] = ..., wait_s: _Optional[float] = ..., partitions: _Optional[bytes] = ...) -> None: ...

class AwaitCommitsReply(_message.Message):
    __slots__ = ("snapshot", "missing", "recompute", "ranges", "waiting", "failed")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    RECOMPUTE_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    snapshot: ReadSnapshot
    missing: bytes
    recompute: bool
    ranges: _containers.RepeatedCompositeFieldContainer[RangeSnapshot]
    waiting: bytes
    failed: bool
    def __init__(self, snapshot: _Optional[_Union[ReadSnapshot, _Mapping]] = ..., missing: _Optional[bytes] = ..., recompute: bool = ..., ranges: _Optional[_Iterable[_Union[RangeSnapshot, _Mapping]]] = ..., waiting: _Optional[bytes] = ..., failed: bool = ...) -> None: ...

class RangeSnapshot(_message.Message):
    __slots__ = ("common", "partitions", "rows", "raw_bytes", "digests", "same_mappers")
    COMMON_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    RAW_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    SAME_MAPPERS_FIELD_NUMBER: _ClassVar[int]
    common: ReadSnapshot
    partitions: bytes
    rows: bytes
    raw_bytes: bytes
    digests: bytes
    same_mappers: bool
    def __init__(self, common: _Optional[_Union[ReadSnapshot, _Mapping]] = ..., partitions: _Optional[bytes] = ..., rows: _Optional[bytes] = ..., raw_bytes: _Optional[bytes] = ..., digests: _Optional[bytes] = ..., same_mappers: bool = ...) -> None: ...

class ReadSnapshot(_message.Message):
    __slots__ = ("version", "generation", "build", "gaps", "attempts", "rows", "raw_bytes", "digest", "sources", "count")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    BUILD_FIELD_NUMBER: _ClassVar[int]
    GAPS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    RAW_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    version: int
    generation: int
    build: int
    gaps: bytes
    attempts: bytes
    rows: int
    raw_bytes: int
    digest: int
    sources: _containers.RepeatedCompositeFieldContainer[Source]
    count: int
    def __init__(self, version: _Optional[int] = ..., generation: _Optional[int] = ..., build: _Optional[int] = ..., gaps: _Optional[bytes] = ..., attempts: _Optional[bytes] = ..., rows: _Optional[int] = ..., raw_bytes: _Optional[int] = ..., digest: _Optional[int] = ..., sources: _Optional[_Iterable[_Union[Source, _Mapping]]] = ..., count: _Optional[int] = ...) -> None: ...

class Source(_message.Message):
    __slots__ = ("range_index", "epoch", "daemons", "sealed", "store_ids")
    RANGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    DAEMONS_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    STORE_IDS_FIELD_NUMBER: _ClassVar[int]
    range_index: int
    epoch: int
    daemons: _containers.RepeatedCompositeFieldContainer[DaemonRef]
    sealed: bool
    store_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, range_index: _Optional[int] = ..., epoch: _Optional[int] = ..., daemons: _Optional[_Iterable[_Union[DaemonRef, _Mapping]]] = ..., sealed: bool = ..., store_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ReportLossRequest(_message.Message):
    __slots__ = ("number", "generation", "build", "partition", "cause", "reason")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    BUILD_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    number: int
    generation: int
    build: int
    partition: int
    cause: LossCause
    reason: str
    def __init__(self, number: _Optional[int] = ..., generation: _Optional[int] = ..., build: _Optional[int] = ..., partition: _Optional[int] = ..., cause: _Optional[_Union[LossCause, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class ReportLossReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ("figures", "protocol")
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    figures: bool
    protocol: int
    def __init__(self, figures: bool = ..., protocol: _Optional[int] = ...) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("cluster_id", "daemons", "exchanges", "open", "closing", "version")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    DAEMONS_FIELD_NUMBER: _ClassVar[int]
    EXCHANGES_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    CLOSING_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    daemons: _containers.RepeatedCompositeFieldContainer[DaemonStatus]
    exchanges: _containers.RepeatedCompositeFieldContainer[ExchangeStatus]
    open: int
    closing: int
    version: str
    def __init__(self, cluster_id: _Optional[str] = ..., daemons: _Optional[_Iterable[_Union[DaemonStatus, _Mapping]]] = ..., exchanges: _Optional[_Iterable[_Union[ExchangeStatus, _Mapping]]] = ..., open: _Optional[int] = ..., closing: _Optional[int] = ..., version: _Optional[str] = ...) -> None: ...

class DaemonStatus(_message.Message):
    __slots__ = ("ref", "host_id", "store_id", "state", "memory_bytes", "free_bytes", "metrics_address", "assignments", "store_failing", "store_hangs", "mechanics", "figures", "version")
    REF_FIELD_NUMBER: _ClassVar[int]
    HOST_ID_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    METRICS_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    STORE_FAILING_FIELD_NUMBER: _ClassVar[int]
    STORE_HANGS_FIELD_NUMBER: _ClassVar[int]
    MECHANICS_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ref: DaemonRef
    host_id: str
    store_id: str
    state: DaemonState
    memory_bytes: int
    free_bytes: int
    metrics_address: str
    assignments: int
    store_failing: bool
    store_hangs: bool
    mechanics: str
    figures: DaemonFigures
    version: str
    def __init__(self, ref: _Optional[_Union[DaemonRef, _Mapping]] = ..., host_id: _Optional[str] = ..., store_id: _Optional[str] = ..., state: _Optional[_Union[DaemonState, str]] = ..., memory_bytes: _Optional[int] = ..., free_bytes: _Optional[int] = ..., metrics_address: _Optional[str] = ..., assignments: _Optional[int] = ..., store_failing: bool = ..., store_hangs: bool = ..., mechanics: _Optional[str] = ..., figures: _Optional[_Union[DaemonFigures, _Mapping]] = ..., version: _Optional[str] = ...) -> None: ...

class ExchangeStatus(_message.Message):
    __slots__ = ("shuffle_id", "number", "partitions", "mappers_committed", "rows", "closing", "finished")
    SHUFFLE_ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    MAPPERS_COMMITTED_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    CLOSING_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    shuffle_id: str
    number: int
    partitions: int
    mappers_committed: int
    rows: int
    closing: bool
    finished: bool
    def __init__(self, shuffle_id: _Optional[str] = ..., number: _Optional[int] = ..., partitions: _Optional[int] = ..., mappers_committed: _Optional[int] = ..., rows: _Optional[int] = ..., closing: bool = ..., finished: bool = ...) -> None: ...

class ListEventsRequest(_message.Message):
    __slots__ = ("after", "limit", "severity", "wait_s")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    after: int
    limit: int
    severity: int
    wait_s: float
    def __init__(self, after: _Optional[int] = ..., limit: _Optional[int] = ..., severity: _Optional[int] = ..., wait_s: _Optional[float] = ...) -> None: ...

class ListEventsReply(_message.Message):
    __slots__ = ("events", "last")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[ToldEvent]
    last: int
    def __init__(self, events: _Optional[_Iterable[_Union[ToldEvent, _Mapping]]] = ..., last: _Optional[int] = ...) -> None: ...

class ToldEvent(_message.Message):
    __slots__ = ("sequence", "time_s", "severity", "fields")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time_s: float
    severity: int
    fields: str
    def __init__(self, sequence: _Optional[int] = ..., time_s: _Optional[float] = ..., severity: _Optional[int] = ..., fields: _Optional[str] = ...) -> None: ...

class ListExchangesRequest(_message.Message):
    __slots__ = ("phase", "prefix", "after", "limit")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    phase: ExchangePhase
    prefix: str
    after: int
    limit: int
    def __init__(self, phase: _Optional[_Union[ExchangePhase, str]] = ..., prefix: _Optional[str] = ..., after: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class ListExchangesReply(_message.Message):
    __slots__ = ("exchanges", "next")
    EXCHANGES_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    exchanges: _containers.RepeatedCompositeFieldContainer[ExchangeStatus]
    next: int
    def __init__(self, exchanges: _Optional[_Iterable[_Union[ExchangeStatus, _Mapping]]] = ..., next: _Optional[int] = ...) -> None: ...

class ShowExchangeRequest(_message.Message):
    __slots__ = ("shuffle_id",)
    SHUFFLE_ID_FIELD_NUMBER: _ClassVar[int]
    shuffle_id: str
    def __init__(self, shuffle_id: _Optional[str] = ...) -> None: ...

class ShowExchangeReply(_message.Message):
    __slots__ = ("status", "group_id", "group_mappers", "replicas", "min_replicas", "codec", "deterministic", "kind", "generation", "callback", "lease_s", "heard_s", "lease_left_s", "mappers_opened", "bytes_raw", "bytes_stored", "copies", "ranges", "largest", "empty_partitions", "daemons", "unusual", "losses", "losses_count", "failures", "contradicted", "waiting_for", "application_id", "direct_reads", "tenant", "created_s", "closed_s", "cause", "rebuilds", "sizes")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_MAPPERS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    MIN_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    DETERMINISTIC_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CALLBACK_FIELD_NUMBER: _ClassVar[int]
    LEASE_S_FIELD_NUMBER: _ClassVar[int]
    HEARD_S_FIELD_NUMBER: _ClassVar[int]
    LEASE_LEFT_S_FIELD_NUMBER: _ClassVar[int]
    MAPPERS_OPENED_FIELD_NUMBER: _ClassVar[int]
    BYTES_RAW_FIELD_NUMBER: _ClassVar[int]
    BYTES_STORED_FIELD_NUMBER: _ClassVar[int]
    COPIES_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    LARGEST_FIELD_NUMBER: _ClassVar[int]
    EMPTY_PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    DAEMONS_FIELD_NUMBER: _ClassVar[int]
    UNUSUAL_FIELD_NUMBER: _ClassVar[int]
    LOSSES_FIELD_NUMBER: _ClassVar[int]
    LOSSES_COUNT_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    CONTRADICTED_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    APPLICATION_ID_FIELD_NUMBER: _ClassVar[int]
    DIRECT_READS_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    CREATED_S_FIELD_NUMBER: _ClassVar[int]
    CLOSED_S_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    REBUILDS_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    status: ExchangeStatus
    group_id: str
    group_mappers: int
    replicas: int
    min_replicas: int
    codec: str
    deterministic: bool
    kind: RowKind
    generation: int
    callback: bool
    lease_s: float
    heard_s: float
    lease_left_s: float
    mappers_opened: int
    bytes_raw: int
    bytes_stored: int
    copies: int
    ranges: int
    largest: _containers.RepeatedCompositeFieldContainer[PartitionSize]
    empty_partitions: int
    daemons: _containers.RepeatedCompositeFieldContainer[DaemonShare]
    unusual: _containers.RepeatedCompositeFieldContainer[RangeStatus]
    losses: _containers.RepeatedCompositeFieldContainer[LossStatus]
    losses_count: int
    failures: _containers.RepeatedCompositeFieldContainer[RangeFailure]
    contradicted: bytes
    waiting_for: _containers.RepeatedScalarFieldContainer[str]
    application_id: str
    direct_reads: bool
    tenant: str
    created_s: float
    closed_s: float
    cause: str
    rebuilds: int
    sizes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, status: _Optional[_Union[ExchangeStatus, _Mapping]] = ..., group_id: _Optional[str] = ..., group_mappers: _Optional[int] = ..., replicas: _Optional[int] = ..., min_replicas: _Optional[int] = ..., codec: _Optional[str] = ..., deterministic: bool = ..., kind: _Optional[_Union[RowKind, str]] = ..., generation: _Optional[int] = ..., callback: bool = ..., lease_s: _Optional[float] = ..., heard_s: _Optional[float] = ..., lease_left_s: _Optional[float] = ..., mappers_opened: _Optional[int] = ..., bytes_raw: _Optional[int] = ..., bytes_stored: _Optional[int] = ..., copies: _Optional[int] = ..., ranges: _Optional[int] = ..., largest: _Optional[_Iterable[_Union[PartitionSize, _Mapping]]] = ..., empty_partitions: _Optional[int] = ..., daemons: _Optional[_Iterable[_Union[DaemonShare, _Mapping]]] = ..., unusual: _Optional[_Iterable[_Union[RangeStatus, _Mapping]]] = ..., losses: _Optional[_Iterable[_Union[LossStatus, _Mapping]]] = ..., losses_count: _Optional[int] = ..., failures: _Optional[_Iterable[_Union[RangeFailure, _Mapping]]] = ..., contradicted: _Optional[bytes] = ..., waiting_for: _Optional[_Iterable[str]] = ..., application_id: _Optional[str] = ..., direct_reads: bool = ..., tenant: _Optional[str] = ..., created_s: _Optional[float] = ..., closed_s: _Optional[float] = ..., cause: _Optional[str] = ..., rebuilds: _Optional[int] = ..., sizes: _Optional[_Iterable[int]] = ...) -> None: ...

class PartitionSize(_message.Message):
    __slots__ = ("partition", "rows", "raw_bytes")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    RAW_BYTES_FIELD_NUMBER: _ClassVar[int]
    partition: int
    rows: int
    raw_bytes: int
    def __init__(self, partition: _Optional[int] = ..., rows: _Optional[int] = ..., raw_bytes: _Optional[int] = ...) -> None: ...

class DaemonShare(_message.Message):
    __slots__ = ("ref", "store_id", "state", "primary", "replica", "sealed")
    REF_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PRIMARY_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    ref: DaemonRef
    store_id: str
    state: DaemonState
    primary: int
    replica: int
    sealed: int
    def __init__(self, ref: _Optional[_Union[DaemonRef, _Mapping]] = ..., store_id: _Optional[str] = ..., state: _Optional[_Union[DaemonState, str]] = ..., primary: _Optional[int] = ..., replica: _Optional[int] = ..., sealed: _Optional[int] = ...) -> None: ...

class RangeStatus(_message.Message):
    __slots__ = ("partition_range", "epoch", "build", "sealed", "copies", "waiting_for")
    PARTITION_RANGE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    BUILD_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    COPIES_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    partition_range: PartitionRange
    epoch: int
    build: int
    sealed: bool
    copies: int
    waiting_for: str
    def __init__(self, partition_range: _Optional[_Union[PartitionRange, _Mapping]] = ..., epoch: _Optional[int] = ..., build: _Optional[int] = ..., sealed: bool = ..., copies: _Optional[int] = ..., waiting_for: _Optional[str] = ...) -> None: ...

class LossStatus(_message.Message):
    __slots__ = ("loss_id", "ranges", "state", "mappers", "reason", "failure", "ranges_count")
    LOSS_ID_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MAPPERS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    RANGES_COUNT_FIELD_NUMBER: _ClassVar[int]
    loss_id: int
    ranges: _containers.RepeatedScalarFieldContainer[int]
    state: LossState
    mappers: int
    reason: str
    failure: str
    ranges_count: int
    def __init__(self, loss_id: _Optional[int] = ..., ranges: _Optional[_Iterable[int]] = ..., state: _Optional[_Union[LossState, str]] = ..., mappers: _Optional[int] = ..., reason: _Optional[str] = ..., failure: _Optional[str] = ..., ranges_count: _Optional[int] = ...) -> None: ...

class RangeFailure(_message.Message):
    __slots__ = ("range_index", "error", "reason")
    RANGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    range_index: int
    error: str
    reason: str
    def __init__(self, range_index: _Optional[int] = ..., error: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class CreateGroupRequest(_message.Message):
    __slots__ = ("spec", "mappers", "size", "first", "owner", "callback", "protocol")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    MAPPERS_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    CALLBACK_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    spec: ExchangeSpec
    mappers: int
    size: int
    first: int
    owner: bytes
    callback: bool
    protocol: int
    def __init__(self, spec: _Optional[_Union[ExchangeSpec, _Mapping]] = ..., mappers: _Optional[int] = ..., size: _Optional[int] = ..., first: _Optional[int] = ..., owner: _Optional[bytes] = ..., callback: bool = ..., protocol: _Optional[int] = ...) -> None: ...

class GroupPart(_message.Message):
    __slots__ = ("group_id", "first", "size", "mappers", "info")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    MAPPERS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    first: int
    size: int
    mappers: int
    info: ExchangeInfoReply
    def __init__(self, group_id: _Optional[str] = ..., first: _Optional[int] = ..., size: _Optional[int] = ..., mappers: _Optional[int] = ..., info: _Optional[_Union[ExchangeInfoReply, _Mapping]] = ...) -> None: ...

class PollGroupRequest(_message.Message):
    __slots__ = ("group_id", "owner", "wait_s", "answers")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    owner: bytes
    wait_s: float
    answers: _containers.RepeatedCompositeFieldContainer[GroupAnswer]
    def __init__(self, group_id: _Optional[str] = ..., owner: _Optional[bytes] = ..., wait_s: _Optional[float] = ..., answers: _Optional[_Iterable[_Union[GroupAnswer, _Mapping]]] = ...) -> None: ...

class GroupAnswer(_message.Message):
    __slots__ = ("index", "loss_id", "failure")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    LOSS_ID_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    index: int
    loss_id: int
    failure: str
    def __init__(self, index: _Optional[int] = ..., loss_id: _Optional[int] = ..., failure: _Optional[str] = ...) -> None: ...

class PollGroupReply(_message.Message):
    __slots__ = ("calls",)
    CALLS_FIELD_NUMBER: _ClassVar[int]
    calls: _containers.RepeatedCompositeFieldContainer[GroupCall]
    def __init__(self, calls: _Optional[_Iterable[_Union[GroupCall, _Mapping]]] = ...) -> None: ...

class GroupCall(_message.Message):
    __slots__ = ("index", "call")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    index: int
    call: RecomputeCall
    def __init__(self, index: _Optional[int] = ..., call: _Optional[_Union[RecomputeCall, _Mapping]] = ...) -> None: ...

class CreateApplicationRequest(_message.Message):
    __slots__ = ("name", "owner", "lease_s", "protocol")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    LEASE_S_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    name: str
    owner: bytes
    lease_s: float
    protocol: int
    def __init__(self, name: _Optional[str] = ..., owner: _Optional[bytes] = ..., lease_s: _Optional[float] = ..., protocol: _Optional[int] = ...) -> None: ...

class CreateApplicationReply(_message.Message):
    __slots__ = ("application_id",)
    APPLICATION_ID_FIELD_NUMBER: _ClassVar[int]
    application_id: str
    def __init__(self, application_id: _Optional[str] = ...) -> None: ...

class PollApplicationRequest(_message.Message):
    __slots__ = ("application_id", "owner", "wait_s", "answers")
    APPLICATION_ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    application_id: str
    owner: bytes
    wait_s: float
    answers: _containers.RepeatedCompositeFieldContainer[ApplicationAnswer]
    def __init__(self, application_id: _Optional[str] = ..., owner: _Optional[bytes] = ..., wait_s: _Optional[float] = ..., answers: _Optional[_Iterable[_Union[ApplicationAnswer, _Mapping]]] = ...) -> None: ...

class ApplicationAnswer(_message.Message):
    __slots__ = ("number", "loss_id", "failure")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    LOSS_ID_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    number: int
    loss_id: int
    failure: str
    def __init__(self, number: _Optional[int] = ..., loss_id: _Optional[int] = ..., failure: _Optional[str] = ...) -> None: ...

class PollApplicationReply(_message.Message):
    __slots__ = ("calls",)
    CALLS_FIELD_NUMBER: _ClassVar[int]
    calls: _containers.RepeatedCompositeFieldContainer[ApplicationCall]
    def __init__(self, calls: _Optional[_Iterable[_Union[ApplicationCall, _Mapping]]] = ...) -> None: ...

class ApplicationCall(_message.Message):
    __slots__ = ("number", "call")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    number: int
    call: RecomputeCall
    def __init__(self, number: _Optional[int] = ..., call: _Optional[_Union[RecomputeCall, _Mapping]] = ...) -> None: ...

class CloseApplicationRequest(_message.Message):
    __slots__ = ("application_id", "owner")
    APPLICATION_ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    application_id: str
    owner: bytes
    def __init__(self, application_id: _Optional[str] = ..., owner: _Optional[bytes] = ...) -> None: ...

class CloseApplicationReply(_message.Message):
    __slots__ = ("was_open",)
    WAS_OPEN_FIELD_NUMBER: _ClassVar[int]
    was_open: bool
    def __init__(self, was_open: bool = ...) -> None: ...

class ReleaseExchangesRequest(_message.Message):
    __slots__ = ("group_id", "indexes")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    INDEXES_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    indexes: bytes
    def __init__(self, group_id: _Optional[str] = ..., indexes: _Optional[bytes] = ...) -> None: ...

class ReleaseExchangesReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CloseGroupRequest(_message.Message):
    __slots__ = ("group_id",)
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    def __init__(self, group_id: _Optional[str] = ...) -> None: ...

class CloseGroupReply(_message.Message):
    __slots__ = ("was_open",)
    WAS_OPEN_FIELD_NUMBER: _ClassVar[int]
    was_open: bool
    def __init__(self, was_open: bool = ...) -> None: ...

class CommitBatchRequest(_message.Message):
    __slots__ = ("commits",)
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    commits: _containers.RepeatedCompositeFieldContainer[CommitRequest]
    def __init__(self, commits: _Optional[_Iterable[_Union[CommitRequest, _Mapping]]] = ...) -> None: ...

class CommitBatchReply(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[CommitResult]
    def __init__(self, results: _Optional[_Iterable[_Union[CommitResult, _Mapping]]] = ...) -> None: ...

class CommitResult(_message.Message):
    __slots__ = ("won", "error")
    WON_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    won: bool
    error: ErrorDetail
    def __init__(self, won: bool = ..., error: _Optional[_Union[ErrorDetail, _Mapping]] = ...) -> None: ...

class ReportUncommittedRequest(_message.Message):
    __slots__ = ("number", "mappers", "reason", "range_index", "build")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    MAPPERS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RANGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    BUILD_FIELD_NUMBER: _ClassVar[int]
    number: int
    mappers: bytes
    reason: str
    range_index: int
    build: int
    def __init__(self, number: _Optional[int] = ..., mappers: _Optional[bytes] = ..., reason: _Optional[str] = ..., range_index: _Optional[int] = ..., build: _Optional[int] = ...) -> None: ...

class ReportUncommittedReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
