"""A plan of faults, drawn from a seed before the run: the same seed gives the same plan.

A plan names roles (leader, follower, all), not members: who holds a role is known only when the
fault begins, and the history then says who it was.
"""

from __future__ import annotations

import enum
from random import Random
from typing import Any, Final

import attrs

SETTLE_S: Final = 1.0
"""Time before the first fault."""

HOLD_S: Final = (1.5, 2.5)
"""How long a fault lasts, from and to."""

PAUSE_S: Final = (1.0, 2.0)
"""Time without a fault after each one."""


class FaultKind(enum.Enum):
    """The kinds of fault, as ``chaos run --faults`` takes them."""

    NONE = "none"
    KILL = "kill"
    KILL_ALL = "kill-all"
    PAUSE = "pause"
    PARTITION = "partition"
    SLOW_LINKS = "slow-links"


class Role(enum.Enum):
    """Whom a fault strikes."""

    LEADER = "leader"
    FOLLOWER = "follower"
    ALL = "all"


@attrs.frozen(slots=True)
class PlannedFault:
    """One fault.

    Args:
        at_s: seconds after the start of the load.
        for_s: how long it lasts.
        kind: what happens.
        role: to whom.
        mode: how links are cut: ``close`` or ``stall``; empty for other kinds.
    """

    at_s: float
    for_s: float
    kind: FaultKind
    role: Role
    mode: str = ""

    def as_json(self) -> dict[str, Any]:
        """For the history's header."""
        return {
            "at_s": self.at_s,
            "for_s": self.for_s,
            "kind": self.kind.value,
            "role": self.role.value,
            "mode": self.mode,
        }


def draw_plan(
    kinds: tuple[FaultKind, ...], seconds: float, rng: Random, can_stall: bool
) -> list[PlannedFault]:
    """Draw the faults of a run of ``seconds``; the first strikes the leader.

    Args:
        kinds: what may happen, in turns; only NONE gives an empty plan.
        seconds: length of the load.
        rng: source of every choice.
        can_stall: whether the proxy server can cut links silently.
    """
    kinds = tuple(kind for kind in kinds if kind is not FaultKind.NONE)
    plan: list[PlannedFault] = []
    at_s = SETTLE_S
    while kinds:
        for_s = rng.uniform(*HOLD_S)
        if plan and at_s + for_s > seconds:
            break
        kind = kinds[len(plan) % len(kinds)]
        role = Role.LEADER if not plan else rng.choice((Role.LEADER, Role.FOLLOWER))
        if kind in (FaultKind.KILL_ALL, FaultKind.SLOW_LINKS):
            role = Role.ALL
        mode = ""
        if kind is FaultKind.PARTITION:
            mode = rng.choice(("close", "stall")) if can_stall else "close"
        plan.append(PlannedFault(round(at_s, 3), round(for_s, 3), kind, role, mode))
        at_s += for_s + rng.uniform(*PAUSE_S)
    return plan
