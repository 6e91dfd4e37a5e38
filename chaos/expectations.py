"""What each engine is known not to survive, with the reason: expected, counted, never hidden.

A run that breaks a promise is ``violated``, expected or not. This list says which kinds of finding
the engine's known defects explain, so that a reader sees at once whether something new was found.
The entries of PySyncObj 0.3.17 were each reproduced or read in its source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from chaos.nemesis.plan import FaultKind
from chaos.verdict import Kind

_LOSS: Final = frozenset(
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
    }
)
"""How the loss of an acknowledged write can show itself in a history."""


@attrs.frozen(slots=True)
class Expectation:
    """A known defect.

    Args:
        name: short, for tables.
        faults: the kinds of fault under which it shows.
        kinds: the findings that it explains.
        reason: what goes wrong, for a person.
    """

    name: str
    faults: frozenset[FaultKind]
    kinds: frozenset[Kind]
    reason: str


PYSYNCOBJ: Final = (
    Expectation(
        "resend truncates applied entries",
        frozenset({FaultKind.KILL, FaultKind.KILL_ALL, FaultKind.PARTITION, FaultKind.PAUSE}),
        _LOSS,
        "after an acknowledgement the leader may re-send entries that a follower has already "
        "applied; the follower truncates them before it appends them again. A crash or a cut of "
        "the leader in between loses committed entries (without batching, which kvstore uses, the "
        "re-send happens even without faults)",
    ),
    Expectation(
        "kill of all members after compaction",
        frozenset({FaultKind.KILL_ALL}),
        _LOSS,
        "a restart that finds a dump whose index is not the head of the journal clears the "
        "journal; trimming the journal clears it and then adds the retained entries again",
    ),
    Expectation(
        "no fsync, no checksums",
        frozenset(),
        _LOSS,
        "nothing is synced to disk: power loss (which no fault here simulates) loses what the "
        "kernel had not written",
    ),
    Expectation(
        "slow repair after divergence",
        frozenset({FaultKind.PARTITION, FaultKind.KILL, FaultKind.KILL_ALL, FaultKind.PAUSE}),
        frozenset({Kind.NOT_RECOVERED}),
        "a follower whose log diverged is repaired one index for each heartbeat",
    ),
)

EXPECTATIONS: Final[Mapping[str, tuple[Expectation, ...]]] = {"pysyncobj": PYSYNCOBJ, "etcd": ()}
"""Known defects by engine (``Target.engine``)."""


def split_expected(
    engine: str, faults: Iterable[FaultKind], counts: Mapping[Kind, int]
) -> tuple[dict[Kind, int], dict[Kind, int]]:
    """Divide what was found into (expected, unexpected) for an engine under these faults."""
    present = set(faults)
    explained = {
        kind
        for expectation in EXPECTATIONS.get(engine, ())
        if expectation.faults & present
        for kind in expectation.kinds
    }
    expected = {kind: count for kind, count in counts.items() if kind in explained}
    unexpected = {kind: count for kind, count in counts.items() if kind not in explained}
    return expected, unexpected
