"""Distributed locks with fencing tokens.

A lock that times out cannot by itself keep two holders apart: a holder may be paused (a long
garbage collection, a suspended machine, a slow network) past its time to live, wake up, and go on
as if it still held. No lock service can stop that, since the holder asks nobody. What can is the
thing that the lock protects: each grant has a token larger than every earlier one, the holder sends
it with each write, and the store refuses a token smaller than the largest it has seen. That is
fencing. Without it the lock saves work but does not protect data.
"""

from __future__ import annotations

from typing import Any

from consensus import command, query
from statemachines.checks import TTL_MS_MAX, check_integer, check_text, check_ttl_ms
from statemachines.holders import HolderMachine


class Locks(HolderMachine):
    """Any number of named locks.

    ::

        async with Node(Locks(), engine) as node:
            locks = Handle(node, Locks)
            lock = await locks.acquire(name="disk", owner="host-1", ttl_ms=10_000, wait_ms=60_000)
            if lock["held"]:
                store.write(data, fence=lock["token"])  # the store refuses smaller tokens
                await locks.release(name="disk", token=lock["token"])

    Guarantees: at any index of the log a lock has at most one holder; tokens strictly increase over
    all locks and for ever; those who wait get the lock in the order in which they came. A holder
    must count its time to live from before it *sent* ``acquire`` or ``renew``, on its own steady
    clock.

    ``owner`` names one contender: give each process (or task) its own, such as a UUID, because
    whoever asks under the holder's name is taken for the holder.
    """

    thing = "lock"

    @command
    def acquire(self, name: str, owner: str, ttl_ms: int, wait_ms: int = 0) -> dict[str, Any]:
        """Take the lock for ``ttl_ms``, or join those who wait for it for up to ``wait_ms``.

        Repeating the call is safe: a holder keeps its token and its time to live begins again, a
        waiter keeps its place. A waiter learns of its turn by calling again, or from ``holder``.

        Returns:
            ``held``: true with ``token`` and ``expires_ms``; or false with ``holder``,
            ``expires_ms`` and ``place`` among those who wait (1 is next, 0: does not wait).
        """
        check_text("name", name)
        check_text("owner", owner)
        check_ttl_ms("ttl_ms", ttl_ms)
        check_integer("wait_ms", wait_ms, 0, TTL_MS_MAX)
        standing = self.ask(name, owner, ttl_ms, wait_ms, "null")
        standing.pop("data", None)
        return standing

    @command
    def renew(self, name: str, token: int) -> dict[str, Any]:
        """Hold for another time to live; returns ``expires_ms``. Refused if the lock was lost."""
        return {"expires_ms": self.renew_by(check_text("name", name), token).expires_ms}

    @command
    def release(self, name: str, token: int) -> dict[str, Any]:
        """Let go; returns the ``next`` holder or None. Refused if the lock was lost before."""
        return {"next": self.release_by(check_text("name", name), token)}

    @command
    def cancel(self, name: str, owner: str) -> dict[str, Any]:
        """Stop waiting; returns ``waited``, whether ``owner`` did."""
        return {"waited": self.leave(check_text("name", name), check_text("owner", owner))}

    @query
    def holder(self, name: str) -> dict[str, Any] | None:
        """Return ``owner``, ``token``, ``expires_ms`` and ``waiters`` in order; None if free."""
        found = self.describe(check_text("name", name))
        if found is None:
            return None
        holder, waiters = found
        return {
            "owner": holder.owner,
            "token": holder.token,
            "expires_ms": holder.expires_ms,
            "waiters": waiters,
        }
