"""What one member was configured with, and the one group there is."""

from __future__ import annotations

import hashlib
from typing import Final

import attrs

from consensus.engines.pysyncobj.raft import PeerNode, Timing

GROUP_ID: Final = 0


@attrs.frozen(slots=True)
class Setup:
    """What an engine was configured with.

    ``me`` and ``others`` are this member and its peers, ``listen`` is "host:port".
    """

    me: PeerNode
    others: tuple[PeerNode, ...]
    listen: str
    timing: Timing
    password: str | None
    snapshot_entries: int

    @property
    def names(self) -> tuple[str, ...]:
        """All members' names, this one's first."""
        return tuple(node.name for node in (self.me, *self.others))

    @property
    def cluster(self) -> str:
        """A digest that the members of one cluster share, for their greeting."""
        text = f"{GROUP_ID}\n" + "\n".join(sorted(self.names))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def is_majority(self, peers: int) -> bool:
        """Whether this member and so many peers are more than half of the group."""
        return 2 * (peers + 1) > len(self.others) + 1
