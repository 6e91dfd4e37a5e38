"""Named things that one owner at a time may hold: what locks and elections have in common.

A holder has a token, drawn from one counter that never goes back, and a time to live that it
renews. Behind it stand others in the order in which they came. When the holder lets go or its time
is up, the first one whose patience has not run out holds, with a new and larger token.
"""

from __future__ import annotations

import json
from typing import Any, Final

import attrs

from consensus import Refused
from statemachines.checks import check_integer
from statemachines.timed import Key, TimedMachine

NAMES_MAX: Final = 10_000
"""Names that are held at one time."""

WAITERS_MAX: Final = 256
"""Owners that wait for one name."""

TOKEN_MAX: Final = 2**63


@attrs.frozen(slots=True)
class Holder:
    """Who holds a name, by which token, until when, and what it wants others to know (JSON)."""

    owner: str
    token: int
    expires_ms: int
    ttl_ms: int
    data: str


@attrs.frozen(slots=True)
class Waiter:
    """Who waits, how long still, and the terms on which it would hold."""

    owner: str
    gives_up_ms: int
    ttl_ms: int
    data: str


class HolderMachine(TimedMachine):
    """Base of machines whose names are held by one owner each."""

    #: What a name and a token stand for, for messages: "lock" and "token", "election" and "term".
    thing = "name"
    grant = "token"

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Become as new."""
        super().reset()
        self._holders: dict[str, Holder] = {}
        self._waiters: dict[str, list[Waiter]] = {}
        self._last_token = 0

    def lapse(self, key: Key, now_ms: int) -> None:
        """A holder did not renew, or a waiter's patience ran out."""
        name, *waiter = key
        if waiter:
            self._drop_waiter(name, waiter[0])
        else:
            self._vacate(name, now_ms)

    def dump_rows(self) -> list[Any]:
        """The last token, then each name with its holder and waiters, by name."""
        return [
            self._last_token,
            *[
                [name, holder, list(self._waiters.get(name, ()))]
                for name, holder in sorted(self._holders.items())
            ],
        ]

    def load_rows(self, rows: list[Any]) -> None:
        """Take the rows."""
        self.reset()
        self._last_token = rows[0]
        for name, fields, waiters in rows[1:]:
            self._set_holder(name, Holder(*fields))
            for waiter in waiters:
                self._set_waiter(name, Waiter(*waiter))

    # -- for subclasses; their arguments are already checked ------------------------------------

    def ask(self, name: str, owner: str, ttl_ms: int, wait_ms: int, data: str) -> dict[str, Any]:
        """Hold ``name`` if it is free or ``owner``'s own; otherwise wait, if ``wait_ms`` is not 0.

        Asking again is harmless: the holder keeps its token and is renewed, a waiter its place.
        """
        now_ms = self.entry.clock_ms
        holder = self._holders.get(name)
        if holder is None:
            if len(self._holders) >= NAMES_MAX:
                raise Refused(f"{NAMES_MAX} {self.thing}s are held; release some first")
            self._grant(name, owner, ttl_ms, data, now_ms)
        elif holder.owner == owner:
            self._set_holder(name, Holder(owner, holder.token, now_ms + ttl_ms, ttl_ms, data))
        elif wait_ms:
            self._set_waiter(name, Waiter(owner, now_ms + wait_ms, ttl_ms, data))
        return self._standing(name, owner)

    def renew_by(self, name: str, token: Any) -> Holder:
        """Let the holder with ``token`` hold for another time to live.

        Raises:
            Refused: that token no longer holds.
        """
        holder = self._held_by(name, token)
        renewed = attrs.evolve(holder, expires_ms=self.entry.clock_ms + holder.ttl_ms)
        self._set_holder(name, renewed)
        return renewed

    def release_by(self, name: str, token: Any) -> str | None:
        """End the hold of ``token`` and return who holds now, or None.

        Raises:
            Refused: that token no longer holds.
        """
        self._held_by(name, token)
        self.deadlines.cancel((name,))
        self._vacate(name, self.entry.clock_ms)
        successor = self._holders.get(name)
        return successor.owner if successor else None

    def leave(self, name: str, owner: str) -> bool:
        """Take ``owner`` out of the row of waiters; return whether it stood there."""
        self.deadlines.cancel((name, owner))
        return self._drop_waiter(name, owner)

    def describe(self, name: str) -> tuple[Holder, list[str]] | None:
        """Return the holder and the waiting owners in order, or None."""
        holder = self._holders.get(name)
        return (holder, self._waiting(name)) if holder else None

    # -- inside -------------------------------------------------------------------------------

    def _standing(self, name: str, owner: str) -> dict[str, Any]:
        holder = self._holders[name]
        if holder.owner == owner:
            return {"held": True, "token": holder.token, "expires_ms": holder.expires_ms}
        waiting = self._waiting(name)
        return {
            "held": False,
            "holder": holder.owner,
            "expires_ms": holder.expires_ms,
            "data": json.loads(holder.data),
            "place": waiting.index(owner) + 1 if owner in waiting else 0,
        }

    def _waiting(self, name: str) -> list[str]:
        return [waiter.owner for waiter in self._waiters.get(name, ())]

    def _held_by(self, name: str, token: Any) -> Holder:
        check_integer(self.grant, token, 1, TOKEN_MAX)
        holder = self._holders.get(name)
        if holder is None or holder.token != token:
            now = (
                f"{holder.owner} does, by {self.grant} {holder.token}" if holder else "nobody does"
            )
            raise Refused(f"{self.grant} {token} does not hold {self.thing} {name!r}; {now}")
        return holder

    def _grant(self, name: str, owner: str, ttl_ms: int, data: str, now_ms: int) -> None:
        self._last_token += 1
        self._set_holder(name, Holder(owner, self._last_token, now_ms + ttl_ms, ttl_ms, data))

    def _set_holder(self, name: str, holder: Holder) -> None:
        self._holders[name] = holder
        self.deadlines.set((name,), holder.expires_ms)

    def _set_waiter(self, name: str, waiter: Waiter) -> None:
        waiters = self._waiters.setdefault(name, [])
        for place, other in enumerate(waiters):
            if other.owner == waiter.owner:
                waiters[place] = waiter
                break
        else:
            if len(waiters) >= WAITERS_MAX:
                raise Refused(f"{WAITERS_MAX} owners wait for {self.thing} {name!r} already")
            waiters.append(waiter)
        self.deadlines.set((name, waiter.owner), waiter.gives_up_ms)

    def _drop_waiter(self, name: str, owner: str) -> bool:
        waiters = self._waiters.get(name, [])
        left = [waiter for waiter in waiters if waiter.owner != owner]
        if left:
            self._waiters[name] = left
        else:
            self._waiters.pop(name, None)
        return len(left) < len(waiters)

    def _vacate(self, name: str, now_ms: int) -> None:
        """Hand ``name`` to the first waiter that still has patience, or to nobody."""
        del self._holders[name]
        for waiter in list(self._waiters.get(name, ())):
            self.leave(name, waiter.owner)
            if waiter.gives_up_ms > now_ms:
                self._grant(name, waiter.owner, waiter.ttl_ms, waiter.data, now_ms)
                return
