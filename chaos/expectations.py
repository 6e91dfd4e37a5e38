"""What each engine declares that it does not survive: expected, counted, never hidden.

The list is the engine's own declaration (``consensus.engine.Capabilities``): the faults that it
claims to survive without losing an acknowledged command, and notes in plain sentences on the rest.
A run that breaks a promise is ``violated``, expected or not; a loss under a fault that the engine
never claimed to survive is counted as expected, every other one as unexpected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from chaos.verdict import Kind
from consensus.engine import Capabilities, Fault
from consensus.engines.native.capabilities import CAPABILITIES as NATIVE
from consensus.engines.pysyncobj.engine import CAPABILITIES as PYSYNCOBJ

ETCD: Final = Capabilities(
    survives=Fault.PROCESS_CRASH_MINORITY
    | Fault.PROCESS_CRASH_ALL
    | Fault.POWER_LOSS
    | Fault.PARTITION
    | Fault.PAUSE
    | Fault.MESSAGE_LOSS
    | Fault.MESSAGE_DUPLICATION
    | Fault.MESSAGE_REORDERING,
    membership_change=True,
    learners=True,
    read_index=True,
    leadership_transfer=True,
    notes=(
        "Release 3.4.23 has known defects that other workloads meet: watches that go back in time "
        "(etcd #15271, #15220, #20221), leases revoked by a deposed leader (#15247).",
    ),
)
"""What etcd's documentation promises; it is the control target."""

DECLARATIONS: Final[Mapping[str, Capabilities]] = {
    "native": NATIVE,
    "pysyncobj": PYSYNCOBJ,
    "etcd": ETCD,
}
"""What each engine (``Target.engine``) declares."""

LOSS: Final = frozenset(
    {
        Kind.LOST_WRITE,
        Kind.MEMBERS_DISAGREE,
        Kind.STALE_READ,
        Kind.WRONG_READ,
        Kind.READ_OF_NOTHING,
        Kind.DUPLICATE_REVISION,
        Kind.MOVED_WRITE,
        Kind.REVISION_NOT_INCREASING,
        Kind.REVISION_GAP,
        Kind.CAS_WRONGLY_APPLIED,
        Kind.CAS_WRONGLY_REFUSED,
        *(Kind.G0, Kind.G1C, Kind.G_SINGLE, Kind.G2, Kind.INCOMPATIBLE_ORDER),
        *(Kind.LOST_ELEMENT, Kind.LOST_ITEM, Kind.RECEIVED_TWICE, Kind.OUT_OF_ORDER),
        *(Kind.WRONG_TOTAL, Kind.APPLIED_TWICE, Kind.WRONGLY_EMPTY),
        *(Kind.WATCH_GAP, Kind.WATCH_WRONG_EVENT, Kind.WATCH_PREVIOUS, Kind.WATCH_BOOKMARK),
        *(Kind.NOT_THE_HOLDER, Kind.TOKEN_ORDER, Kind.WRONG_LEADER),
    }
)
"""How the loss of an acknowledged write can show itself in a history."""


def flag_names(flags: Fault) -> list[str]:
    """The faults in ``flags`` as words."""
    return [(flag.name or "").lower().replace("_", " ") for flag in Fault if flag and flag in flags]


def not_survived(engine: str) -> Fault:
    """The faults that an engine does not claim to survive."""
    every = Fault.NONE
    for flag in Fault:
        every |= flag
    return every & ~DECLARATIONS[engine].survives


def split_expected(
    engine: str, needed: Fault, counts: Mapping[Kind, int]
) -> tuple[dict[Kind, int], dict[Kind, int]]:
    """Divide what was found into (expected, unexpected).

    Args:
        engine: that replicated.
        needed: what it had to survive to come through the faults of the run.
        counts: what the checkers found.
    """
    excused = LOSS if needed & not_survived(engine) else frozenset[Kind]()
    expected = {kind: count for kind, count in counts.items() if kind in excused}
    unexpected = {kind: count for kind, count in counts.items() if kind not in excused}
    return expected, unexpected


def expected_reason(engine: str, unsafe: str, unexpected: Mapping[str, int]) -> str:
    """Why a run that was violated was expected to be, in one sentence; "" if it was not.

    Args:
        engine: that replicated.
        unsafe: why the workload breaks its promise on any engine (``Workload.unsafe``), or "".
        unexpected: what ``split_expected`` did not excuse.
    """
    if unsafe:
        return unsafe
    if unexpected:
        return ""
    return f"{engine} does not claim to survive {', '.join(flag_names(not_survived(engine)))}"
