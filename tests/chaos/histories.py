"""Building histories by hand, and generating correct ones."""

from __future__ import annotations

from random import Random

import attrs

from chaos.history.format import Operation, Outcome, WatchEvent


class Script:
    """A history written line by line. Times are given as (start, end)."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.log: list[WatchEvent] = []

    def put(
        self,
        at: tuple[int, int | None],
        value: str,
        revision: int = 0,
        key: str = "a",
        outcome: Outcome = Outcome.OK,
        logged: bool = True,
    ) -> Script:
        """A put; with a revision and ``logged`` it is in the store's log too."""
        self._add(at, "put", key, outcome, value=value, revision=revision)
        if logged and revision:
            self.log.append(WatchEvent(revision, key, value))
        return self

    def get(
        self,
        at: tuple[int, int | None],
        value: str | None,
        modified: int,
        revision: int,
        key: str = "a",
    ) -> Script:
        """A get that saw ``value``, modified at ``modified``, at the store's ``revision``."""
        self._add(at, "get", key, Outcome.OK, seen=value, seen_revision=modified, revision=revision)
        return self

    def cas(
        self,
        at: tuple[int, int | None],
        expected: int,
        value: str,
        revision: int = 0,
        applied: bool = True,
        seen: tuple[str | None, int] = (None, 0),
        key: str = "a",
        outcome: Outcome = Outcome.OK,
        logged: bool = True,
    ) -> Script:
        """A compare-and-set; a refused one saw ``seen``."""
        self._add(
            at,
            "cas",
            key,
            outcome,
            value=value,
            expected=expected,
            revision=revision,
            applied=applied and outcome is Outcome.OK,
            seen=seen[0],
            seen_revision=seen[1],
        )
        if applied and logged and revision:
            self.log.append(WatchEvent(revision, key, value))
        return self

    def _add(
        self,
        at: tuple[int, int | None],
        f: str,
        key: str,
        outcome: Outcome,
        **fields: object,
    ) -> None:
        number = len(self.operations)
        if outcome is Outcome.UNKNOWN or at[1] is None:
            fields.pop("revision", None)
        operation = Operation(
            id=number, process=number, f=f, key=key, start=at[0], end=at[1], outcome=outcome
        )
        self.operations.append(attrs.evolve(operation, **fields))
        self.log.sort(key=lambda event: event.revision)


def generate(
    rng: Random, count: int, keys: int = 2, clients: int = 4, unknown: float = 0.0
) -> tuple[list[Operation], list[WatchEvent]]:
    """Return a correct history and its log: each operation takes effect inside its interval.

    ``unknown`` is the share of writes whose outcome the client never learns; half of them
    take effect.
    """
    operations: list[Operation] = []
    log: list[WatchEvent] = []
    state: dict[str, tuple[str, int]] = {}
    free = [0] * clients
    process = list(range(clients))
    revision, now = 1, 1
    for number in range(count):
        now += rng.randrange(1, 20)
        client = rng.randrange(clients)
        if free[client] >= now:
            client = min(range(clients), key=free.__getitem__)
            now = max(now, free[client] + 1)
        start = rng.randrange(max(free[client] + 1, now - 60), now + 1)
        end = now + rng.randrange(0, 60)
        free[client] = end
        key = f"k{rng.randrange(keys)}"
        value, modified = state.get(key, (None, 0))
        operation = Operation(
            number, process[client], rng.choice(("put", "get", "cas")), key, start, end=end
        )
        operation.outcome = Outcome.OK
        lost = operation.may_write and rng.random() < unknown
        if operation.may_write:
            operation.value = f"v{number}"
        if operation.f == "cas":
            operation.expected = modified if rng.random() < 0.6 else modified + 1
        writes = operation.f == "put" or (operation.f == "cas" and operation.expected == modified)
        if writes and not (lost and rng.random() < 0.5):
            revision += 1
            state[key] = (operation.value or "", revision)
            log.append(WatchEvent(revision, key, operation.value))
            operation.applied = operation.f == "cas"
        elif not lost:
            operation.seen, operation.seen_revision = value, modified
        operation.revision = revision
        if lost:
            operation.outcome, operation.end = Outcome.UNKNOWN, None
            operation.revision, operation.applied = 0, False
            process[client] = clients + number
        operations.append(operation)
    return operations, log
