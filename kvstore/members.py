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


def encode_context(cluster_id: int, peer_urls: Iterable[str]) -> bytes:
    """Return what the engine's configuration keeps with a member.

    Args:
        cluster_id: for a member that joins, which cannot compute it.
        peer_urls: where the others reach this member, as the API shows it.
    """
    fields = {"cluster_id": f"{cluster_id:x}", "peer_urls": sorted(peer_urls)}
    return json.dumps(fields, sort_keys=True).encode()


def decode_context(context: bytes) -> tuple[int, tuple[str, ...]]:
    """Return the cluster's ID and a member's peer URLs."""
    fields = json.loads(context)
    return int(fields["cluster_id"], 16), tuple(fields["peer_urls"])


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
        _, urls = decode_context(member.context)
    elif founder is not None and member.address in ("", founder.address):
        urls = founder.peer_urls
    else:
        urls = (SCHEME + member.address,)
    return MemberInfo(id, attributes.name, urls, tuple(attributes.client_urls), member.learner)
