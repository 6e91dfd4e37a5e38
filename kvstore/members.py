"""Who is in the cluster now: what the engine says, with what the members said of themselves.

The engine's configuration decides who is a member, where, and who only learns; it carries a
member's peer URLs as its context. Names and client URLs are attributes that each member puts into
the log when it starts (``MemberAttributes``): one that has not started yet has neither.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from consensus.types import EngineStatus, Member
from kvstore.identity import Founder, id_of
from kvstore.machine import KVStateMachine
from kvstore.pb.command_pb2 import MemberAttributes

SCHEME: Final = "http://"


@attrs.frozen(slots=True)
class MemberInfo:
    """One member of the cluster."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    learner: bool

    @property
    def started(self) -> bool:
        """Whether it has ever told its name, which it does when it starts."""
        return bool(self.name)


def encode_peer_urls(urls: Iterable[str]) -> bytes:
    """Return peer URLs as the context of a member in the engine's configuration."""
    return json.dumps({"peer_urls": list(urls)}).encode()


def decode_peer_urls(context: bytes) -> tuple[str, ...]:
    """Return the peer URLs in a member's context."""
    return tuple(json.loads(context)["peer_urls"])


def current_members(
    status: EngineStatus, machine: KVStateMachine, founders: Mapping[int, Founder]
) -> dict[int, MemberInfo]:
    """Return the cluster's members by ID, in the order of their IDs.

    Args:
        status: the engine's.
        machine: holds what the members said of themselves.
        founders: whom this member's settings name.
    """
    said = {attributes.id: attributes for attributes in machine.members()}
    found = (_info(member, said, founders) for member in status.members)
    return {info.id: info for info in sorted(found, key=lambda info: info.id)}


def _info(
    member: Member, said: Mapping[int, MemberAttributes], founders: Mapping[int, Founder]
) -> MemberInfo:
    id = id_of(member.id)
    attributes = said.get(id, MemberAttributes())
    founder = founders.get(id)
    if member.context:
        urls = decode_peer_urls(member.context)
    elif founder is not None and member.address in ("", founder.address):
        urls = founder.peer_urls
    else:
        urls = (SCHEME + member.address,)
    return MemberInfo(id, attributes.name, urls, tuple(attributes.client_urls), member.learner)
