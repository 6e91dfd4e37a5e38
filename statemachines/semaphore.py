"""Counting semaphores: at most so many at once, for machines instead of threads.

As with locks, a holder has a time to live and a fencing token: one whose time is up has lost its
permits whether it knows or not.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from consensus import Refused, command, query
from statemachines.checks import check_integer, check_text, check_ttl_ms
from statemachines.timed import Key, TimedMachine

SEMAPHORES_MAX: Final = 10_000
"""Semaphores in one machine."""

PERMITS_MAX: Final = 1_000_000
"""Permits of one semaphore."""

HOLDERS_MAX: Final = 10_000
"""Holders in one machine, over all semaphores."""

TOKEN_MAX: Final = 2**63


@attrs.frozen(slots=True)
class Grant:
    """Permits that one owner holds."""

    owner: str
    token: int
    permits: int
    expires_ms: int
    ttl_ms: int


class Semaphores(TimedMachine):
    """Any number of named counting semaphores.

    ::

        async with Node(Semaphores(), engine) as node:
            semaphores = Handle(node, Semaphores)
            await semaphores.configure(name="licences", permits=3)
            grant = await semaphores.acquire(name="licences", owner="host-1", ttl_ms=10_000)
            if grant["held"]:
                await semaphores.release(name="licences", token=grant["token"])

    Guarantees: at any index of the log the permits held are at most those configured (fewer
    configured later take nothing away, but nobody gets more until enough came back); tokens
    strictly increase. There is no line to wait in: who gets none asks again, so a large request can
    starve.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Become as new."""
        super().reset()
        self._limits: dict[str, int] = {}
        self._grants: dict[str, dict[str, Grant]] = {}
        self._last_token = 0

    @command
    def configure(self, name: str, permits: int) -> dict[str, int]:
        """Create a semaphore or change how many permits it has; 0 removes it once nobody holds.

        Returns:
            ``permits``, and how many are ``available``.
        """
        check_text("name", name)
        check_integer("permits", permits, 0, PERMITS_MAX)
        if permits == 0:
            if self._grants.get(name):
                raise Refused(f"semaphore {name!r} is still held; it cannot be removed yet")
            self._limits.pop(name, None)
            return {"permits": 0, "available": 0}
        if name not in self._limits and len(self._limits) >= SEMAPHORES_MAX:
            raise Refused(f"there are {SEMAPHORES_MAX} semaphores already; remove some first")
        self._limits[name] = permits
        return {"permits": permits, "available": self._available(name)}

    @command
    def acquire(self, name: str, owner: str, ttl_ms: int, permits: int = 1) -> dict[str, Any]:
        """Take ``permits`` at once, or none. Repeating the call renews what ``owner`` holds.

        Returns:
            ``held``: true with ``token`` and ``expires_ms``, or false; and the permits
            ``available``.
        """
        limit = self._limit(name)
        check_text("owner", owner)
        check_ttl_ms("ttl_ms", ttl_ms)
        check_integer("permits", permits, 1, PERMITS_MAX)
        if permits > limit:
            raise Refused(f"semaphore {name!r} has {limit} permits in all, not {permits}")
        held = self._grants.get(name, {}).get(owner)
        if held is not None and held.permits != permits:
            raise Refused(f"{owner!r} holds {held.permits} permits already; release them first")
        if held is None:
            if permits > self._available(name):
                return {"held": False, "available": self._available(name)}
            if len(self.deadlines) >= HOLDERS_MAX:
                raise Refused(f"there are {HOLDERS_MAX} holders already")
            self._last_token += 1
        token = held.token if held else self._last_token
        grant = Grant(owner, token, permits, self.entry.clock_ms + ttl_ms, ttl_ms)
        self._set(name, grant)
        return {
            "held": True,
            "token": token,
            "expires_ms": grant.expires_ms,
            "available": self._available(name),
        }

    @command
    def renew(self, name: str, token: int) -> dict[str, int]:
        """Hold for another time to live; returns ``expires_ms``. Refused if they were lost."""
        grant = self._held(name, token)
        renewed = attrs.evolve(grant, expires_ms=self.entry.clock_ms + grant.ttl_ms)
        self._set(name, renewed)
        return {"expires_ms": renewed.expires_ms}

    @command
    def release(self, name: str, token: int) -> dict[str, int]:
        """Give the permits back; returns those ``available``. Refused if they were lost before."""
        grant = self._held(name, token)
        self.deadlines.cancel((name, grant.owner))
        self._drop(name, grant.owner)
        return {"available": self._available(name)}

    @query
    def status(self, name: str) -> dict[str, Any]:
        """Return ``permits``, ``available`` and ``holders``, by token."""
        limit = self._limit(name)
        grants = sorted(self._grants.get(name, {}).values(), key=lambda grant: grant.token)
        return {
            "permits": limit,
            "available": self._available(name),
            "holders": [
                {"owner": grant.owner, "token": grant.token, "permits": grant.permits}
                for grant in grants
            ],
        }

    def lapse(self, key: Key, now_ms: int) -> None:
        """A holder did not renew."""
        self._drop(*key)

    def dump_rows(self) -> list[Any]:
        """The last token, then each semaphore with its grants."""
        return [
            self._last_token,
            *[
                [name, limit, [grant for _, grant in sorted(self._grants.get(name, {}).items())]]
                for name, limit in sorted(self._limits.items())
            ],
        ]

    def load_rows(self, rows: list[Any]) -> None:
        """Take the rows."""
        self.reset()
        self._last_token = rows[0]
        for name, limit, grants in rows[1:]:
            self._limits[name] = limit
            for fields in grants:
                self._set(name, Grant(*fields))

    def _limit(self, name: Any) -> int:
        limit = self._limits.get(check_text("name", name))
        if limit is None:
            raise Refused(f"there is no semaphore {name!r}; configure it first")
        return limit

    def _available(self, name: str) -> int:
        held = sum(grant.permits for grant in self._grants.get(name, {}).values())
        return max(0, self._limits[name] - held)

    def _held(self, name: Any, token: Any) -> Grant:
        check_text("name", name)
        check_integer("token", token, 1, TOKEN_MAX)
        for grant in self._grants.get(name, {}).values():
            if grant.token == token:
                return grant
        raise Refused(f"token {token} does not hold permits of semaphore {name!r}")

    def _set(self, name: str, grant: Grant) -> None:
        self._grants.setdefault(name, {})[grant.owner] = grant
        self.deadlines.set((name, grant.owner), grant.expires_ms)

    def _drop(self, name: str, owner: str) -> None:
        del self._grants[name][owner]
        if not self._grants[name]:
            del self._grants[name]
