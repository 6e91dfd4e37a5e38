"""How proposals travel inside one PySyncObj command.

All proposals of one turn of the event loop make one *frame*: a header that names the frame for
ever, the proposals, a checksum. PySyncObj pickles what it is given, and its way of cutting large
commands miscounts bytes above 127, so a frame goes through it as base64 text: ASCII only. No
object of ours is ever pickled; a frame that does not decode is damage, and is reported as such.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterator, Sequence
from typing import Final

import attrs
import google_crc32c

from consensus.errors import StorageError
from consensus.types import Proposal, ProposalId

FRAME_VERSION: Final = 1

FRAME_BYTES_MAX: Final = 256 * 1024
"""Proposals of one turn share a frame up to this many bytes of commands; then a new one begins."""

COMMAND_BYTES_MAX: Final = 16 * 1024 * 1024
"""No single command may be larger: PySyncObj holds its whole log in memory."""

_HEAD: Final = struct.Struct("<BIQQQI")  # version, group id, member, incarnation, number, count
_ITEM: Final = struct.Struct("<QQQqI")  # member, incarnation, sequence, clock (ms), length
_CHECK: Final = struct.Struct("<I")


@attrs.frozen(slots=True)
class FrameKey:
    """Names one frame: the engine that made it, in which life, and the how-manieth."""

    member: int
    incarnation: int
    number: int


@attrs.frozen(slots=True)
class Frame:
    """Proposals on their way through PySyncObj. Without proposals it is a barrier for reads."""

    key: FrameKey
    group_id: int
    proposals: tuple[Proposal, ...]


def encode_frame(frame: Frame) -> str:
    """Return the frame as ASCII text."""
    key = frame.key
    parts = [
        _HEAD.pack(
            FRAME_VERSION,
            frame.group_id,
            key.member,
            key.incarnation,
            key.number,
            len(frame.proposals),
        )
    ]
    for proposal in frame.proposals:
        name = proposal.id
        parts.append(
            _ITEM.pack(
                name.member,
                name.incarnation,
                name.sequence,
                proposal.clock_ms,
                len(proposal.command),
            )
        )
        parts.append(proposal.command)
    body = b"".join(parts)
    body += _CHECK.pack(google_crc32c.value(body))
    return binascii.b2a_base64(body, newline=False).decode("ascii")


def decode_frame(text: str) -> Frame:
    """Return the frame that ``encode_frame`` once wrote.

    Raises:
        StorageError: the text is not a frame, is damaged, or has a version from the future.
    """
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise StorageError(f"not a frame: {error}") from None
    if len(data) < _HEAD.size + _CHECK.size:
        raise StorageError(f"not a frame: {len(data)} bytes are too few")
    end = len(data) - _CHECK.size
    (check,) = _CHECK.unpack_from(data, end)
    if google_crc32c.value(data[:end]) != check:
        raise StorageError("damaged frame: its checksum does not match")
    version, group_id, member, incarnation, number, count = _HEAD.unpack_from(data)
    if version != FRAME_VERSION:
        raise StorageError(f"frame of version {version}; this program knows {FRAME_VERSION}")
    proposals = []
    offset = _HEAD.size
    for _ in range(count):
        owner, life, sequence, clock_ms, length = _ITEM.unpack_from(data, offset)
        offset += _ITEM.size
        command = data[offset : offset + length]
        offset += length
        proposals.append(Proposal(ProposalId(owner, life, sequence), clock_ms, command))
    return Frame(FrameKey(member, incarnation, number), group_id, tuple(proposals))


def split_proposals(proposals: Sequence[Proposal]) -> Iterator[tuple[Proposal, ...]]:
    """Yield proposals in order, in groups of at most ``FRAME_BYTES_MAX`` bytes of commands.

    A command that is larger alone makes a group of its own.
    """
    group: list[Proposal] = []
    size = 0
    for proposal in proposals:
        if group and size + len(proposal.command) > FRAME_BYTES_MAX:
            yield tuple(group)
            group, size = [], 0
        group.append(proposal)
        size += len(proposal.command)
    if group:
        yield tuple(group)
