from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RefusalCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REFUSAL_CODE_UNSPECIFIED: _ClassVar[RefusalCode]
    REFUSAL_CODE_BAD_FRAME: _ClassVar[RefusalCode]
    REFUSAL_CODE_WRONG_INCARNATION: _ClassVar[RefusalCode]
    REFUSAL_CODE_NOT_ASSIGNED: _ClassVar[RefusalCode]
    REFUSAL_CODE_EXCHANGE_CLOSED: _ClassVar[RefusalCode]
    REFUSAL_CODE_NO_CAPACITY: _ClassVar[RefusalCode]
    REFUSAL_CODE_PROTOCOL: _ClassVar[RefusalCode]
    REFUSAL_CODE_ACCESS_DENIED: _ClassVar[RefusalCode]
    REFUSAL_CODE_INCOMPATIBLE: _ClassVar[RefusalCode]

class FollowOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FOLLOW_OUTCOME_UNSPECIFIED: _ClassVar[FollowOutcome]
    FOLLOW_OUTCOME_READY: _ClassVar[FollowOutcome]
    FOLLOW_OUTCOME_WAITING: _ClassVar[FollowOutcome]
    FOLLOW_OUTCOME_ELSEWHERE: _ClassVar[FollowOutcome]
    FOLLOW_OUTCOME_CLOSED: _ClassVar[FollowOutcome]
    FOLLOW_OUTCOME_DENIED: _ClassVar[FollowOutcome]
REFUSAL_CODE_UNSPECIFIED: RefusalCode
REFUSAL_CODE_BAD_FRAME: RefusalCode
REFUSAL_CODE_WRONG_INCARNATION: RefusalCode
REFUSAL_CODE_NOT_ASSIGNED: RefusalCode
REFUSAL_CODE_EXCHANGE_CLOSED: RefusalCode
REFUSAL_CODE_NO_CAPACITY: RefusalCode
REFUSAL_CODE_PROTOCOL: RefusalCode
REFUSAL_CODE_ACCESS_DENIED: RefusalCode
REFUSAL_CODE_INCOMPATIBLE: RefusalCode
FOLLOW_OUTCOME_UNSPECIFIED: FollowOutcome
FOLLOW_OUTCOME_READY: FollowOutcome
FOLLOW_OUTCOME_WAITING: FollowOutcome
FOLLOW_OUTCOME_ELSEWHERE: FollowOutcome
FOLLOW_OUTCOME_CLOSED: FollowOutcome
FOLLOW_OUTCOME_DENIED: FollowOutcome

class ProbeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ProbeReply(_message.Message):
    __slots__ = ("incarnation",)
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    incarnation: int
    def __init__(self, incarnation: _Optional[int] = ...) -> None: ...

class AssignmentKey(_message.Message):
    __slots__ = ("number", "range_index", "epoch")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    RANGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    number: int
    range_index: int
    epoch: int
    def __init__(self, number: _Optional[int] = ..., range_index: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class SealRequest(_message.Message):
    __slots__ = ("incarnation", "keys", "capability")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    incarnation: int
    keys: _containers.RepeatedCompositeFieldContainer[AssignmentKey]
    capability: str
    def __init__(self, incarnation: _Optional[int] = ..., keys: _Optional[_Iterable[_Union[AssignmentKey, _Mapping]]] = ..., capability: _Optional[str] = ...) -> None: ...

class SealReply(_message.Message):
    __slots__ = ("incarnation", "held_bytes")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    HELD_BYTES_FIELD_NUMBER: _ClassVar[int]
    incarnation: int
    held_bytes: int
    def __init__(self, incarnation: _Optional[int] = ..., held_bytes: _Optional[int] = ...) -> None: ...

class PushRequest(_message.Message):
    __slots__ = ("hello", "released", "announce", "withdrawn", "eager", "frame")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    ANNOUNCE_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWN_FIELD_NUMBER: _ClassVar[int]
    EAGER_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    released: _containers.RepeatedScalarFieldContainer[int]
    announce: _containers.RepeatedScalarFieldContainer[int]
    withdrawn: bool
    eager: bool
    frame: bytes
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., released: _Optional[_Iterable[int]] = ..., announce: _Optional[_Iterable[int]] = ..., withdrawn: bool = ..., eager: bool = ..., frame: _Optional[bytes] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "number", "mapper", "attempt", "incarnation", "primary", "capability")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    MAPPER_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    PRIMARY_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    number: int
    mapper: int
    attempt: int
    incarnation: int
    primary: int
    capability: str
    def __init__(self, protocol: _Optional[int] = ..., number: _Optional[int] = ..., mapper: _Optional[int] = ..., attempt: _Optional[int] = ..., incarnation: _Optional[int] = ..., primary: _Optional[int] = ..., capability: _Optional[str] = ...) -> None: ...

class PushReply(_message.Message):
    __slots__ = ("acknowledged", "granted", "refused", "copies_max_bytes", "eager_bytes")
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    COPIES_MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    EAGER_BYTES_FIELD_NUMBER: _ClassVar[int]
    acknowledged: _containers.RepeatedScalarFieldContainer[int]
    granted: int
    refused: _containers.RepeatedCompositeFieldContainer[Refusal]
    copies_max_bytes: int
    eager_bytes: int
    def __init__(self, acknowledged: _Optional[_Iterable[int]] = ..., granted: _Optional[int] = ..., refused: _Optional[_Iterable[_Union[Refusal, _Mapping]]] = ..., copies_max_bytes: _Optional[int] = ..., eager_bytes: _Optional[int] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("sequence", "code", "reason")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    code: RefusalCode
    reason: str
    def __init__(self, sequence: _Optional[int] = ..., code: _Optional[_Union[RefusalCode, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("number", "range_index", "epoch", "partition", "files", "parts", "mappers", "direct", "capability")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    RANGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    MAPPERS_FIELD_NUMBER: _ClassVar[int]
    DIRECT_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    number: int
    range_index: int
    epoch: int
    partition: int
    files: bool
    parts: _containers.RepeatedCompositeFieldContainer[FetchPart]
    mappers: bytes
    direct: bool
    capability: str
    def __init__(self, number: _Optional[int] = ..., range_index: _Optional[int] = ..., epoch: _Optional[int] = ..., partition: _Optional[int] = ..., files: bool = ..., parts: _Optional[_Iterable[_Union[FetchPart, _Mapping]]] = ..., mappers: _Optional[bytes] = ..., direct: bool = ..., capability: _Optional[str] = ...) -> None: ...

class FetchPart(_message.Message):
    __slots__ = ("range_index", "epoch", "partitions", "files")
    RANGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    range_index: int
    epoch: int
    partitions: bytes
    files: bool
    def __init__(self, range_index: _Optional[int] = ..., epoch: _Optional[int] = ..., partitions: _Optional[bytes] = ..., files: bool = ...) -> None: ...

class FetchReply(_message.Message):
    __slots__ = ("section", "data", "end", "packed")
    SECTION_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    PACKED_FIELD_NUMBER: _ClassVar[int]
    section: Section
    data: bytes
    end: PartEnd
    packed: _containers.RepeatedCompositeFieldContainer[FetchReply]
    def __init__(self, section: _Optional[_Union[Section, _Mapping]] = ..., data: _Optional[bytes] = ..., end: _Optional[_Union[PartEnd, _Mapping]] = ..., packed: _Optional[_Iterable[_Union[FetchReply, _Mapping]]] = ...) -> None: ...

class PartEnd(_message.Message):
    __slots__ = ("part", "partition")
    PART_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    part: int
    partition: int
    def __init__(self, part: _Optional[int] = ..., partition: _Optional[int] = ...) -> None: ...

class Section(_message.Message):
    __slots__ = ("body_bytes", "offset", "stored", "error", "headers", "reference")
    BODY_BYTES_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    body_bytes: int
    offset: int
    stored: bool
    error: str
    headers: bool
    reference: Reference
    def __init__(self, body_bytes: _Optional[int] = ..., offset: _Optional[int] = ..., stored: bool = ..., error: _Optional[str] = ..., headers: bool = ..., reference: _Optional[_Union[Reference, _Mapping]] = ...) -> None: ...

class Reference(_message.Message):
    __slots__ = ("url", "path", "file_bytes", "index_crc")
    URL_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    FILE_BYTES_FIELD_NUMBER: _ClassVar[int]
    INDEX_CRC_FIELD_NUMBER: _ClassVar[int]
    url: str
    path: str
    file_bytes: int
    index_crc: int
    def __init__(self, url: _Optional[str] = ..., path: _Optional[str] = ..., file_bytes: _Optional[int] = ..., index_crc: _Optional[int] = ...) -> None: ...

class FollowRequests(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[FollowRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[FollowRequest, _Mapping]]] = ...) -> None: ...

class FollowReplies(_message.Message):
    __slots__ = ("replies",)
    REPLIES_FIELD_NUMBER: _ClassVar[int]
    replies: _containers.RepeatedCompositeFieldContainer[FollowReply]
    def __init__(self, replies: _Optional[_Iterable[_Union[FollowReply, _Mapping]]] = ...) -> None: ...

class FollowRequest(_message.Message):
    __slots__ = ("id", "incarnation", "number", "range_index", "epoch", "partition", "max_bytes", "now", "leave", "same_build", "capability")
    ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    RANGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    LEAVE_FIELD_NUMBER: _ClassVar[int]
    SAME_BUILD_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    id: int
    incarnation: int
    number: int
    range_index: int
    epoch: int
    partition: int
    max_bytes: int
    now: bool
    leave: bool
    same_build: bool
    capability: str
    def __init__(self, id: _Optional[int] = ..., incarnation: _Optional[int] = ..., number: _Optional[int] = ..., range_index: _Optional[int] = ..., epoch: _Optional[int] = ..., partition: _Optional[int] = ..., max_bytes: _Optional[int] = ..., now: bool = ..., leave: bool = ..., same_build: bool = ..., capability: _Optional[str] = ...) -> None: ...

class FollowReply(_message.Message):
    __slots__ = ("id", "outcome", "reason", "done", "attempts", "rows", "raw_bytes", "digest", "fetch", "data")
    ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    RAW_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    FETCH_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    id: int
    outcome: FollowOutcome
    reason: str
    done: bytes
    attempts: bytes
    rows: int
    raw_bytes: int
    digest: int
    fetch: bool
    data: bytes
    def __init__(self, id: _Optional[int] = ..., outcome: _Optional[_Union[FollowOutcome, str]] = ..., reason: _Optional[str] = ..., done: _Optional[bytes] = ..., attempts: _Optional[bytes] = ..., rows: _Optional[int] = ..., raw_bytes: _Optional[int] = ..., digest: _Optional[int] = ..., fetch: bool = ..., data: _Optional[bytes] = ...) -> None: ...
