"""Member and cluster IDs by etcd's formula, so that tools which compute them agree.

A member's ID is the first 8 bytes of the SHA-1 of its sorted peer URLs and the cluster token (and,
for a member that is added to a running cluster, the time); a cluster's is the same of the sorted
IDs of the members that it began with.

An engine knows a member by the text of its ID: a name is only an attribute, which nobody knows yet
when a member is added, and which need not be unique.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import attrs

from consensus.types import NodeId
from kvstore.urls import Url


def _first_8_bytes(data: bytes) -> int:
    return int.from_bytes(hashlib.sha1(data, usedforsecurity=False).digest()[:8], "big")


def member_id(peer_urls: Iterable[str], token: str, added_s: int | None = None) -> int:
    """Return the ID of the member with these peer URLs in the cluster with this token.

    Args:
        added_s: when it was added to a running cluster, in whole seconds since the epoch; None for
            a member that the cluster began with.
    """
    added = "" if added_s is None else str(added_s)
    return _first_8_bytes(("".join(sorted(peer_urls)) + token + added).encode())


def cluster_id(member_ids: Iterable[int]) -> int:
    """Return the ID of the cluster that began with these members."""
    return _first_8_bytes(b"".join(number.to_bytes(8, "big") for number in sorted(member_ids)))


def node_of(id: int) -> NodeId:
    """Return what engines call the member with this ID: hexadecimal text, as etcd prints it."""
    return f"{id:x}"


def id_of(node: NodeId | None) -> int:
    """Return the ID of the member that an engine knows as ``node``; 0 for None (as etcd reports
    "no leader")."""
    return 0 if node is None else int(node, 16)


@attrs.frozen(slots=True)
class Founder:
    """A member that the cluster began with, as ``--initial-cluster`` names it."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    address: str


@attrs.frozen(slots=True)
class Identity:
    """Who this process is: its cluster's ID, its own, its name, and whom the settings name."""

    cluster_id: int
    member_id: int
    name: str
    founders: Mapping[int, Founder]
    joined: bool = False
    """Whether this member was added while the cluster ran; its IDs do not follow from settings."""

    @property
    def node_id(self) -> NodeId:
        """The name by which engines know this member."""
        return node_of(self.member_id)


def identify(initial_cluster: Mapping[str, Sequence[Url]], name: str, token: str) -> Identity:
    """Return the identity of member ``name`` in a cluster that begins with these members."""
    founders = {}
    for member, urls in initial_cluster.items():
        texts = tuple(sorted(url.text for url in urls))
        founder = Founder(member_id(texts, token), member, texts, urls[0].address)
        founders[founder.id] = founder
        if member == name:
            own = founder
    return Identity(cluster_id(founders), own.id, name, founders)
