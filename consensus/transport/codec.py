"""Frames: a length, a checksum, and one protobuf envelope; and Raft messages to and from them.

    length    u32   of the envelope
    crc32c    u32   of the envelope
    envelope

A frame whose checksum is wrong ends its connection: what follows it cannot be trusted either.
"""

from __future__ import annotations

import struct
from typing import Final

import google_crc32c

from consensus.raft.messages import (
    AnyMessage,
    AppendEntries,
    AppendEntriesResponse,
    EntryKind,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    LogEntry,
    PreVote,
    PreVoteResponse,
    Propose,
    ProposeRejected,
    ReadIndex,
    ReadIndexResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from consensus.transport import wire_pb2 as wire
from consensus.types import NodeId

WIRE_VERSION: Final = 1
FRAME_BYTES_MAX: Final = 256 * 1024 * 1024
_PREFIX: Final = struct.Struct("<II")
PREFIX_BYTES: Final = _PREFIX.size


class BadFrame(Exception):
    """What came in is not a frame of this protocol. The connection must end."""


def pack(envelope: wire.Envelope) -> bytes:
    """Return one frame."""
    payload = envelope.SerializeToString()
    return _PREFIX.pack(len(payload), google_crc32c.value(payload)) + payload


def unpack_prefix(prefix: bytes) -> tuple[int, int]:
    """Return a frame's length and checksum.

    Raises:
        BadFrame: the length cannot be.
    """
    length, checksum = _PREFIX.unpack(prefix)
    if length > FRAME_BYTES_MAX:
        raise BadFrame(f"a frame of {length} bytes; at most {FRAME_BYTES_MAX} are allowed")
    return length, checksum


def unpack(payload: bytes, checksum: int) -> wire.Envelope:
    """Return the envelope in a frame's payload.

    Raises:
        BadFrame: its checksum or its form is wrong.
    """
    if google_crc32c.value(payload) != checksum:
        raise BadFrame("a frame does not match its checksum")
    try:
        return wire.Envelope.FromString(payload)
    except Exception as error:
        raise BadFrame(f"a frame is not an envelope: {error}") from error


def to_wire(message: AnyMessage) -> wire.Envelope:
    """Return the envelope of a Raft message. Sender and receiver are the connection's."""
    envelope = wire.Envelope(term=message.term)
    match message:
        case AppendEntries():
            body = envelope.append_entries
            body.prev_log_index = message.prev_log_index
            body.prev_log_term = message.prev_log_term
            body.leader_commit = message.leader_commit
            add = body.entries.add
            for entry in message.entries:
                add(index=entry.index, term=entry.term, kind=entry.kind, data=entry.data)
            body.SetInParent()
        case AppendEntriesResponse():
            envelope.append_entries_response.CopyFrom(
                wire.AppendEntriesResponse(
                    success=message.success,
                    match_index=message.match_index,
                    rejected_index=message.rejected_index,
                    conflict_index=message.conflict_index,
                    conflict_term=message.conflict_term,
                )
            )
        case Heartbeat():
            envelope.heartbeat.CopyFrom(
                wire.Heartbeat(leader_commit=message.leader_commit, round=message.round)
            )
        case HeartbeatResponse():
            envelope.heartbeat_response.CopyFrom(wire.HeartbeatResponse(round=message.round))
        case Propose():
            envelope.propose.CopyFrom(
                wire.Propose(request=message.request, commands=message.commands)
            )
        case ProposeRejected():
            envelope.propose_rejected.CopyFrom(wire.ProposeRejected(request=message.request))
        case ReadIndex():
            envelope.read_index.CopyFrom(wire.ReadIndex(request=message.request))
        case ReadIndexResponse():
            envelope.read_index_response.CopyFrom(
                wire.ReadIndexResponse(request=message.request, index=message.index)
            )
        case PreVote():
            envelope.pre_vote.CopyFrom(
                wire.PreVote(
                    last_log_index=message.last_log_index, last_log_term=message.last_log_term
                )
            )
        case PreVoteResponse():
            envelope.pre_vote_response.CopyFrom(wire.Vote(granted=message.granted))
        case RequestVote():
            envelope.request_vote.CopyFrom(
                wire.RequestVote(
                    last_log_index=message.last_log_index,
                    last_log_term=message.last_log_term,
                    transfer=message.transfer,
                )
            )
        case RequestVoteResponse():
            envelope.request_vote_response.CopyFrom(wire.Vote(granted=message.granted))
        case TimeoutNow():
            envelope.timeout_now.SetInParent()
        case InstallSnapshot():
            raise TypeError("a snapshot travels on a connection of its own")
    return envelope


def from_wire(envelope: wire.Envelope, sender: NodeId, receiver: NodeId) -> AnyMessage | None:
    """Return the Raft message in an envelope; None where it holds something else."""
    term = envelope.term
    kind = envelope.WhichOneof("body")
    match kind:
        case "append_entries":
            body = envelope.append_entries
            return AppendEntries(
                sender=sender,
                receiver=receiver,
                term=term,
                prev_log_index=body.prev_log_index,
                prev_log_term=body.prev_log_term,
                entries=tuple(
                    LogEntry(entry.index, entry.term, EntryKind(entry.kind), entry.data)
                    for entry in body.entries
                ),
                leader_commit=body.leader_commit,
            )
        case "append_entries_response":
            answer = envelope.append_entries_response
            return AppendEntriesResponse(
                sender=sender,
                receiver=receiver,
                term=term,
                success=answer.success,
                match_index=answer.match_index,
                rejected_index=answer.rejected_index,
                conflict_index=answer.conflict_index,
                conflict_term=answer.conflict_term,
            )
        case "heartbeat":
            return Heartbeat(
                sender=sender,
                receiver=receiver,
                term=term,
                leader_commit=envelope.heartbeat.leader_commit,
                round=envelope.heartbeat.round,
            )
        case "heartbeat_response":
            return HeartbeatResponse(
                sender=sender,
                receiver=receiver,
                term=term,
                round=envelope.heartbeat_response.round,
            )
        case "propose":
            return Propose(
                sender=sender,
                receiver=receiver,
                term=term,
                request=envelope.propose.request,
                commands=tuple(envelope.propose.commands),
            )
        case _:
            return _rare_from_wire(envelope, kind, sender, receiver)


def _rare_from_wire(
    envelope: wire.Envelope, kind: str | None, sender: NodeId, receiver: NodeId
) -> AnyMessage | None:
    term = envelope.term
    match kind:
        case "propose_rejected":
            return ProposeRejected(
                sender=sender,
                receiver=receiver,
                term=term,
                request=envelope.propose_rejected.request,
            )
        case "read_index":
            return ReadIndex(
                sender=sender, receiver=receiver, term=term, request=envelope.read_index.request
            )
        case "read_index_response":
            return ReadIndexResponse(
                sender=sender,
                receiver=receiver,
                term=term,
                request=envelope.read_index_response.request,
                index=envelope.read_index_response.index,
            )
        case "pre_vote":
            return PreVote(
                sender=sender,
                receiver=receiver,
                term=term,
                last_log_index=envelope.pre_vote.last_log_index,
                last_log_term=envelope.pre_vote.last_log_term,
            )
        case "pre_vote_response":
            return PreVoteResponse(
                sender=sender,
                receiver=receiver,
                term=term,
                granted=envelope.pre_vote_response.granted,
            )
        case "request_vote":
            return RequestVote(
                sender=sender,
                receiver=receiver,
                term=term,
                last_log_index=envelope.request_vote.last_log_index,
                last_log_term=envelope.request_vote.last_log_term,
                transfer=envelope.request_vote.transfer,
            )
        case "request_vote_response":
            return RequestVoteResponse(
                sender=sender,
                receiver=receiver,
                term=term,
                granted=envelope.request_vote_response.granted,
            )
        case "timeout_now":
            return TimeoutNow(sender=sender, receiver=receiver, term=term)
        case _:
            return None
