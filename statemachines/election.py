"""Leader election for applications: one of several candidates leads, and all know which.

This elects a leader *of the application*, not of the Raft group below. A leader keeps its office by
heartbeats; when they stop, the next candidate in line leads under a larger term. As with locks, a
leader that was paused may not know yet that it was replaced: it must send its term with what it
does, and who receives that must refuse a smaller term than the largest seen.
"""

from __future__ import annotations

import json
from typing import Any, Final

from consensus import command, query
from statemachines.checks import check_text, check_ttl_ms, check_value
from statemachines.holders import HolderMachine

DATA_BYTES_MAX: Final = 4096
"""What a candidate may publish about itself, in bytes of JSON."""


class Elections(HolderMachine):
    """Any number of named elections.

    ::

        async with Node(Elections(), engine) as node:
            elections = Handle(node, Elections)
            mine = await elections.campaign(
                election="billing", candidate="host-1", ttl_ms=5_000, data="10.0.0.1:80"
            )
            if mine["leads"]:  # renew well within ttl_ms
                await elections.heartbeat(election="billing", term=mine["term"])

    Guarantees: at any index of the log an election has at most one leader; terms strictly increase;
    candidates succeed in the order in which they came. A candidate stays in line by campaigning
    again within its ``ttl_ms``.
    """

    thing = "election"
    grant = "term"

    @command
    def campaign(
        self, election: str, candidate: str, ttl_ms: int, data: Any = None
    ) -> dict[str, Any]:
        """Stand for election, or stay in line, or (as the leader) stay in office.

        Args:
            election: what is being elected.
            candidate: who stands; unique to one process.
            ttl_ms: how long the leader leads, and a candidate stays in line, without a sign of
                life.
            data: JSON that all may read while this candidate leads, such as its address.

        Returns:
            ``leads``: true with ``term`` and ``expires_ms``; or false with ``leader``, its ``data``
            and ``expires_ms``, and this candidate's ``place`` in line (1 is next).
        """
        check_text("election", election)
        check_text("candidate", candidate)
        check_ttl_ms("ttl_ms", ttl_ms)
        text = check_value("data", data, DATA_BYTES_MAX)
        standing = self.ask(election, candidate, ttl_ms, ttl_ms, text)
        if standing["held"]:
            return {
                "leads": True,
                "term": standing["token"],
                "expires_ms": standing["expires_ms"],
            }
        return {
            "leads": False,
            "leader": standing["holder"],
            "data": standing["data"],
            "expires_ms": standing["expires_ms"],
            "place": standing["place"],
        }

    @command
    def heartbeat(self, election: str, term: int) -> dict[str, Any]:
        """Stay in office for another ``ttl_ms``; returns ``expires_ms``. Refused if replaced."""
        return {"expires_ms": self.renew_by(check_text("election", election), term).expires_ms}

    @command
    def resign(self, election: str, term: int) -> dict[str, Any]:
        """Hand over; returns the new ``leader`` or None. Refused if replaced before."""
        return {"leader": self.release_by(check_text("election", election), term)}

    @command
    def withdraw(self, election: str, candidate: str) -> dict[str, Any]:
        """Leave the line; returns ``stood``, whether ``candidate`` was in it."""
        left = self.leave(check_text("election", election), check_text("candidate", candidate))
        return {"stood": left}

    @query
    def observe(self, election: str) -> dict[str, Any] | None:
        """Return ``leader``, ``term``, ``data``, ``expires_ms``, ``candidates``; None if none."""
        found = self.describe(check_text("election", election))
        if found is None:
            return None
        holder, waiters = found
        return {
            "leader": holder.owner,
            "term": holder.token,
            "data": json.loads(holder.data),
            "expires_ms": holder.expires_ms,
            "candidates": waiters,
        }
