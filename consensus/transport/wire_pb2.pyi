from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Hello(_message.Message):
    __slots__ = ("version", "cluster", "group", "sender", "receiver", "purpose", "address", "feature_level")
    class Purpose(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        MESSAGES: _ClassVar[Hello.Purpose]
        SNAPSHOT: _ClassVar[Hello.Purpose]
        DESCRIBE: _ClassVar[Hello.Purpose]
    MESSAGES: Hello.Purpose
    SNAPSHOT: Hello.Purpose
    DESCRIBE: Hello.Purpose
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    FEATURE_LEVEL_FIELD_NUMBER: _ClassVar[int]
    version: int
    cluster: str
    group: int
    sender: str
    receiver: str
    purpose: Hello.Purpose
    address: str
    feature_level: int
    def __init__(self, version: _Optional[int] = ..., cluster: _Optional[str] = ..., group: _Optional[int] = ..., sender: _Optional[str] = ..., receiver: _Optional[str] = ..., purpose: _Optional[_Union[Hello.Purpose, str]] = ..., address: _Optional[str] = ..., feature_level: _Optional[int] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("refusal", "removed", "members")
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    refusal: str
    removed: bool
    members: _containers.RepeatedCompositeFieldContainer[DescribedMember]
    def __init__(self, refusal: _Optional[str] = ..., removed: _Optional[bool] = ..., members: _Optional[_Iterable[_Union[DescribedMember, _Mapping]]] = ...) -> None: ...

class DescribedMember(_message.Message):
    __slots__ = ("id", "address", "learner", "context")
    ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LEARNER_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    id: str
    address: str
    learner: bool
    context: bytes
    def __init__(self, id: _Optional[str] = ..., address: _Optional[str] = ..., learner: _Optional[bool] = ..., context: _Optional[bytes] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("index", "term", "configuration", "clock_ms", "command_index", "id")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    CLOCK_MS_FIELD_NUMBER: _ClassVar[int]
    COMMAND_INDEX_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    index: int
    term: int
    configuration: bytes
    clock_ms: int
    command_index: int
    id: bytes
    def __init__(self, index: _Optional[int] = ..., term: _Optional[int] = ..., configuration: _Optional[bytes] = ..., clock_ms: _Optional[int] = ..., command_index: _Optional[int] = ..., id: _Optional[bytes] = ...) -> None: ...

class SnapshotEnd(_message.Message):
    __slots__ = ("size", "checksum")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    size: int
    checksum: int
    def __init__(self, size: _Optional[int] = ..., checksum: _Optional[int] = ...) -> None: ...

class Envelope(_message.Message):
    __slots__ = ("term", "pre_vote", "pre_vote_response", "request_vote", "request_vote_response", "append_entries", "append_entries_response", "heartbeat", "heartbeat_response", "timeout_now", "propose", "propose_rejected", "read_index", "read_index_response", "ask", "answer", "hello", "welcome", "snapshot", "snapshot_chunk", "snapshot_end", "change_members", "change_members_response", "snapshot_offset")
    TERM_FIELD_NUMBER: _ClassVar[int]
    PRE_VOTE_FIELD_NUMBER: _ClassVar[int]
    PRE_VOTE_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_VOTE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_VOTE_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    APPEND_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    APPEND_ENTRIES_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_NOW_FIELD_NUMBER: _ClassVar[int]
    PROPOSE_FIELD_NUMBER: _ClassVar[int]
    PROPOSE_REJECTED_FIELD_NUMBER: _ClassVar[int]
    READ_INDEX_FIELD_NUMBER: _ClassVar[int]
    READ_INDEX_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ASK_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_CHUNK_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_END_FIELD_NUMBER: _ClassVar[int]
    CHANGE_MEMBERS_FIELD_NUMBER: _ClassVar[int]
    CHANGE_MEMBERS_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    term: int
    pre_vote: PreVote
    pre_vote_response: Vote
    request_vote: RequestVote
    request_vote_response: Vote
    append_entries: AppendEntries
    append_entries_response: AppendEntriesResponse
    heartbeat: Heartbeat
    heartbeat_response: HeartbeatResponse
    timeout_now: TimeoutNow
    propose: Propose
    propose_rejected: ProposeRejected
    read_index: ReadIndex
    read_index_response: ReadIndexResponse
    ask: Ask
    answer: Answer
    hello: Hello
    welcome: Welcome
    snapshot: Snapshot
    snapshot_chunk: bytes
    snapshot_end: SnapshotEnd
    change_members: ChangeMembers
    change_members_response: ChangeMembersResponse
    snapshot_offset: int
    def __init__(self, term: _Optional[int] = ..., pre_vote: _Optional[_Union[PreVote, _Mapping]] = ..., pre_vote_response: _Optional[_Union[Vote, _Mapping]] = ..., request_vote: _Optional[_Union[RequestVote, _Mapping]] = ..., request_vote_response: _Optional[_Union[Vote, _Mapping]] = ..., append_entries: _Optional[_Union[AppendEntries, _Mapping]] = ..., append_entries_response: _Optional[_Union[AppendEntriesResponse, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., heartbeat_response: _Optional[_Union[HeartbeatResponse, _Mapping]] = ..., timeout_now: _Optional[_Union[TimeoutNow, _Mapping]] = ..., propose: _Optional[_Union[Propose, _Mapping]] = ..., propose_rejected: _Optional[_Union[ProposeRejected, _Mapping]] = ..., read_index: _Optional[_Union[ReadIndex, _Mapping]] = ..., read_index_response: _Optional[_Union[ReadIndexResponse, _Mapping]] = ..., ask: _Optional[_Union[Ask, _Mapping]] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ..., hello: _Optional[_Union[Hello, _Mapping]] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., snapshot: _Optional[_Union[Snapshot, _Mapping]] = ..., snapshot_chunk: _Optional[bytes] = ..., snapshot_end: _Optional[_Union[SnapshotEnd, _Mapping]] = ..., change_members: _Optional[_Union[ChangeMembers, _Mapping]] = ..., change_members_response: _Optional[_Union[ChangeMembersResponse, _Mapping]] = ..., snapshot_offset: _Optional[int] = ...) -> None: ...

class PreVote(_message.Message):
    __slots__ = ("last_log_index", "last_log_term")
    LAST_LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_LOG_TERM_FIELD_NUMBER: _ClassVar[int]
    last_log_index: int
    last_log_term: int
    def __init__(self, last_log_index: _Optional[int] = ..., last_log_term: _Optional[int] = ...) -> None: ...

class RequestVote(_message.Message):
    __slots__ = ("last_log_index", "last_log_term", "transfer")
    LAST_LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_LOG_TERM_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    last_log_index: int
    last_log_term: int
    transfer: bool
    def __init__(self, last_log_index: _Optional[int] = ..., last_log_term: _Optional[int] = ..., transfer: _Optional[bool] = ...) -> None: ...

class Vote(_message.Message):
    __slots__ = ("granted",)
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    granted: bool
    def __init__(self, granted: _Optional[bool] = ...) -> None: ...

class AppendEntries(_message.Message):
    __slots__ = ("prev_log_index", "prev_log_term", "entries", "leader_commit", "quiet")
    PREV_LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    PREV_LOG_TERM_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    LEADER_COMMIT_FIELD_NUMBER: _ClassVar[int]
    QUIET_FIELD_NUMBER: _ClassVar[int]
    prev_log_index: int
    prev_log_term: int
    entries: bytes
    leader_commit: int
    quiet: bool
    def __init__(self, prev_log_index: _Optional[int] = ..., prev_log_term: _Optional[int] = ..., entries: _Optional[bytes] = ..., leader_commit: _Optional[int] = ..., quiet: _Optional[bool] = ...) -> None: ...

class AppendEntriesResponse(_message.Message):
    __slots__ = ("success", "match_index", "rejected_index", "conflict_index", "conflict_term")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    MATCH_INDEX_FIELD_NUMBER: _ClassVar[int]
    REJECTED_INDEX_FIELD_NUMBER: _ClassVar[int]
    CONFLICT_INDEX_FIELD_NUMBER: _ClassVar[int]
    CONFLICT_TERM_FIELD_NUMBER: _ClassVar[int]
    success: bool
    match_index: int
    rejected_index: int
    conflict_index: int
    conflict_term: int
    def __init__(self, success: _Optional[bool] = ..., match_index: _Optional[int] = ..., rejected_index: _Optional[int] = ..., conflict_index: _Optional[int] = ..., conflict_term: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("leader_commit", "round")
    LEADER_COMMIT_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    leader_commit: int
    round: int
    def __init__(self, leader_commit: _Optional[int] = ..., round: _Optional[int] = ...) -> None: ...

class HeartbeatResponse(_message.Message):
    __slots__ = ("round",)
    ROUND_FIELD_NUMBER: _ClassVar[int]
    round: int
    def __init__(self, round: _Optional[int] = ...) -> None: ...

class TimeoutNow(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Propose(_message.Message):
    __slots__ = ("request", "commands")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    request: int
    commands: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, request: _Optional[int] = ..., commands: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ProposeRejected(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: int
    def __init__(self, request: _Optional[int] = ...) -> None: ...

class ReadIndex(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: int
    def __init__(self, request: _Optional[int] = ...) -> None: ...

class ReadIndexResponse(_message.Message):
    __slots__ = ("request", "index")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    request: int
    index: int
    def __init__(self, request: _Optional[int] = ..., index: _Optional[int] = ...) -> None: ...

class Ask(_message.Message):
    __slots__ = ("number", "request")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    number: int
    request: bytes
    def __init__(self, number: _Optional[int] = ..., request: _Optional[bytes] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("number", "response", "not_leader", "failure")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    NOT_LEADER_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    number: int
    response: bytes
    not_leader: bool
    failure: str
    def __init__(self, number: _Optional[int] = ..., response: _Optional[bytes] = ..., not_leader: _Optional[bool] = ..., failure: _Optional[str] = ...) -> None: ...

class MemberStep(_message.Message):
    __slots__ = ("kind", "member", "address", "learner", "context")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ADD: _ClassVar[MemberStep.Kind]
        REMOVE: _ClassVar[MemberStep.Kind]
        PROMOTE: _ClassVar[MemberStep.Kind]
        UPDATE: _ClassVar[MemberStep.Kind]
    ADD: MemberStep.Kind
    REMOVE: MemberStep.Kind
    PROMOTE: MemberStep.Kind
    UPDATE: MemberStep.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LEARNER_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    kind: MemberStep.Kind
    member: str
    address: str
    learner: bool
    context: bytes
    def __init__(self, kind: _Optional[_Union[MemberStep.Kind, str]] = ..., member: _Optional[str] = ..., address: _Optional[str] = ..., learner: _Optional[bool] = ..., context: _Optional[bytes] = ...) -> None: ...

class ChangeMembers(_message.Message):
    __slots__ = ("number", "steps")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    number: int
    steps: _containers.RepeatedCompositeFieldContainer[MemberStep]
    def __init__(self, number: _Optional[int] = ..., steps: _Optional[_Iterable[_Union[MemberStep, _Mapping]]] = ...) -> None: ...

class ChangeMembersResponse(_message.Message):
    __slots__ = ("number", "index", "error", "text")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    number: int
    index: int
    error: str
    text: str
    def __init__(self, number: _Optional[int] = ..., index: _Optional[int] = ..., error: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...
