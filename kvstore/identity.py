"""Member and cluster IDs by etcd's formula, so that tools which compute them agree.

A member's ID is the first 8 bytes of the SHA-1 of its sorted peer URLs and the cluster token; a
cluster's is the same of the sorted member IDs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import attrs

from kvstore.urls import Url


def _first_8_bytes(data: bytes) -> int:
    return int.from_bytes(hashlib.sha1(data, usedforsecurity=False).digest()[:8], "big")


def member_id(peer_urls: Iterable[str], token: str) -> int:
    """Return the ID of the member with these peer URLs in the cluster with this token."""
    return _first_8_bytes(("".join(sorted(peer_urls)) + token).encode())


def cluster_id(member_ids: Iterable[int]) -> int:
    """Return the ID of the cluster that began with these members."""
    return _first_8_bytes(b"".join(number.to_bytes(8, "big") for number in sorted(member_ids)))


@attrs.frozen(slots=True)
class MemberInfo:
    """One configured member."""

    id: int
    name: str
    peer_urls: tuple[str, ...]


@attrs.frozen(slots=True)
class Identity:
    """Who this process is: its cluster's ID, its own, and all members by name."""

    cluster_id: int
    member_id: int
    members: Mapping[str, MemberInfo]

    def id_of(self, name: str | None) -> int:
        """Return a member's ID by its name, 0 for none (as etcd reports "no leader")."""
        member = self.members.get(name) if name is not None else None
        return member.id if member is not None else 0


def identify(initial_cluster: Mapping[str, Sequence[Url]], name: str, token: str) -> Identity:
    """Return the identity of member ``name`` in a cluster that begins with these members."""
    members = {}
    for member, urls in initial_cluster.items():
        texts = tuple(sorted(url.text for url in urls))
        members[member] = MemberInfo(member_id(texts, token), member, texts)
    return Identity(cluster_id(member.id for member in members.values()), members[name].id, members)
