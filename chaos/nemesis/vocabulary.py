"""The classes of fault: their names, whom they can strike, their options, and what they ask for.

This is the one vocabulary: plans are written in it, processes and the simulator are both broken by
it, histories and reports name faults by it. A name is ``layer.fault``. What carries a fault out on
processes is in ``chaos.nemesis.injectors``; ``chaos.nemesis.simulated`` has the simulated twins.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

import attrs

from consensus import failpoints
from consensus.engine import Fault

Value = str | int | float | bool


class Want(enum.Enum):
    """What a fault asks of the place where it is to happen. The values are for messages."""

    TOXID = "toxid as the proxy server"
    FRAMES = "peers whose frames toxid can tell apart (the native engine)"
    LOSSY_DISK = "lossy disks, through FUSE"
    FAILPOINTS = "members with failpoints (the native engine)"
    CLOCK = "members whose clock can be shifted (kvstore, raftyard serve)"
    ADMIN = "members that answer etcd's Maintenance API"
    TRANSFER = "members that answer etcd's MoveLeader"
    MEMBERSHIP = "members that come and go (kvstore on the native engine, etcd)"


@attrs.frozen(slots=True)
class Option:
    """One option of a fault class: its default, and what it may be.

    Args:
        default: also says of which type it is.
        text: what it means, with its unit.
        choices: the values that a text may have.
        low: least value of a number.
        high: greatest value of a number.
    """

    default: Value
    text: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = float("inf")


ROLES: Final = ("leader", "follower", "minority", "majority", "all")
"""Whom a fault can strike, beside a member by its name; who that is, is seen when it begins."""


@attrs.frozen(slots=True)
class FaultClass:
    """One class of fault.

    Args:
        kind: its name.
        text: what it does, in one sentence.
        targets: the roles that it can strike; the first is the default.
        needs: what an engine must survive to come through it without a loss.
        options: by name.
        wants: what it asks for.
    """

    kind: str
    text: str
    targets: tuple[str, ...]
    needs: Fault = Fault.NONE
    options: Mapping[str, Option] = attrs.field(factory=dict)
    wants: frozenset[Want] = frozenset()


_LINKS: Final = Option("peers", "which links", choices=("peers", "clients", "all"))
_TOXIC_TARGETS: Final = ("all", "leader", "follower", "minority", "majority")
_TOXID: Final = frozenset({Want.TOXID})
_FRAMES: Final = frozenset({Want.TOXID, Want.FRAMES})


def _toxic(kind: str, text: str, wants: frozenset[Want], **options: Option) -> FaultClass:
    """A fault that sits in the links of whom it strikes."""
    return FaultClass(kind, text, _TOXIC_TARGETS, Fault.NONE, {"links": _LINKS, **options}, wants)


_NETWORK: Final = (
    FaultClass(
        "net.partition",
        "Members cannot reach each other, or clients cannot reach members.",
        ROLES,
        Fault.PARTITION,
        {
            "shape": Option(
                "isolate",
                "isolate: the target from all others; majorities-ring: each hears a majority, no "
                "two the same one; bridge: two halves that one member sees both of; partial: one "
                "pair, of which the target is one; clients: the target's clients",
                choices=("isolate", "majorities-ring", "bridge", "partial", "clients"),
            ),
            "direction": Option(
                "both",
                "in: the target hears nothing; out: it is not heard (always silent)",
                choices=("both", "in", "out"),
            ),
            "mode": Option(
                "close",
                "close: connections drop and are refused; stall: silence, delivered late",
                choices=("close", "stall"),
            ),
        },
    ),
    FaultClass(
        "net.stall",
        "The target's peer links jam; all that was sent arrives in one burst at the end.",
        ROLES,
        Fault.NONE,
        wants=_TOXID,
    ),
    FaultClass(
        "net.flap",
        "The target's peer links drop and come back, again and again.",
        ROLES,
        Fault.PARTITION,
        {"every_s": Option(0.5, "seconds between two changes", low=0.05)},
    ),
    _toxic(
        "net.latency",
        "Bytes are delayed.",
        frozenset(),
        delay_ms=Option(60, "added to a round trip, milliseconds"),
        jitter_ms=Option(20, "varies it, milliseconds"),
    ),
    _toxic(
        "net.bandwidth",
        "Few bytes a second pass.",
        _TOXID,
        rate_kb=Option(50, "kilobytes a second each way", low=1),
    ),
    _toxic(
        "net.slicer",
        "Bytes arrive in small pieces.",
        _TOXID,
        size=Option(64, "bytes of a piece", low=1),
        delay_us=Option(1000, "between two pieces, microseconds"),
    ),
    _toxic(
        "net.limit",
        "A connection ends after so many bytes, in the middle of whatever it was.",
        _TOXID,
        bytes=Option(20_000, "that pass each way", low=1),
    ),
    _toxic(
        "net.reset",
        "Connections are reset (TCP RST) soon after their first byte.",
        _TOXID,
        after_ms=Option(100, "milliseconds after the first byte"),
    ),
    _toxic(
        "net.swallow",
        "Half-open: bytes vanish without a word; connections close when it ends.",
        _TOXID,
    ),
    _toxic(
        "net.loss",
        "Packets are lost: TCP sends them again, late, and what follows waits.",
        _TOXID,
        rate=Option(0.1, "probability", high=1),
        resend_ms=Option(200, "until a lost one was sent again, milliseconds"),
    ),
    attrs.evolve(
        _toxic(
            "net.drop",
            "Whole messages between members vanish.",
            _FRAMES,
            rate=Option(0.1, "probability of a message", high=1),
        ),
        needs=Fault.MESSAGE_LOSS,
    ),
    attrs.evolve(
        _toxic(
            "net.duplicate",
            "Messages between members arrive twice, the second time late.",
            _FRAMES,
            rate=Option(0.2, "probability of a message", high=1),
            late=Option(20, "messages that may pass before the repeat", low=1, high=1000),
        ),
        needs=Fault.MESSAGE_DUPLICATION,
    ),
    attrs.evolve(
        _toxic(
            "net.reorder",
            "Messages between members overtake each other.",
            _FRAMES,
            rate=Option(0.2, "probability of a message", high=1),
            late=Option(5, "messages that may overtake it", low=1, high=1000),
        ),
        needs=Fault.MESSAGE_REORDERING,
    ),
    _toxic(
        "net.corrupt",
        "Bits of what members send are flipped on the way.",
        _FRAMES,
        rate=Option(0.01, "probability of a read of up to 32 KiB", high=1),
    ),
)

_CRASH: Final = Fault.PROCESS_CRASH_MINORITY

_PROCESSES: Final = (
    FaultClass(
        "proc.kill",
        "SIGKILL; started again at the end.",
        ROLES,
        _CRASH,
    ),
    FaultClass("proc.pause", "SIGSTOP; SIGCONT at the end.", ROLES, Fault.PAUSE),
    FaultClass(
        "proc.starve",
        "The target gets the processor in short turns only.",
        ROLES,
        Fault.PAUSE,
        {
            "run_ms": Option(20, "of each turn it runs, milliseconds", low=1),
            "stop_ms": Option(80, "of each turn it is stopped, milliseconds", low=1),
        },
    ),
    FaultClass(
        "proc.rolling_restart",
        "Each member in turn ends and starts again; the next when it serves.",
        ("all",),
        _CRASH,
        {"graceful": Option(False, "SIGTERM instead of SIGKILL")},
    ),
    FaultClass(
        "proc.restart_loop",
        "The target is killed and started, again and again.",
        ROLES,
        _CRASH,
        {"every_s": Option(0.7, "seconds that it runs each time", low=0.05)},
    ),
)

_FAILPOINT: Final = FaultClass(
    "proc.failpoint",
    "The target is restarted with a failpoint armed (consensus.failpoints), at the end without.",
    ("follower", "leader"),
    _CRASH,
    {
        "point": Option("wal.before_sync", "where", choices=tuple(failpoints.POINTS)),
        "action": Option("crash", "what happens there", choices=("crash", "error", "delay")),
        "delay_ms": Option(200, "of a delay, milliseconds", high=failpoints.DELAY_MS_MAX),
        "nth": Option(5, "at which visit; a delay at all later ones too", low=1),
    },
    frozenset({Want.FAILPOINTS}),
)

_ANYONE: Final = ("follower", "leader", "minority", "majority", "all")
_LOSSY: Final = frozenset({Want.LOSSY_DISK})
_FILES: Final = Option("log", "which files", choices=("log", "database", "any"))

_DISKS: Final = (
    FaultClass(
        "disk.power_loss",
        "SIGKILL, and what was not synced is gone; started again at the end.",
        _ANYONE,
        _CRASH | Fault.POWER_LOSS,
        {
            "leaves": Option(
                "torn",
                "of unsynced writes: all are lost; the first are kept and the next is torn; some "
                "sectors of any are kept",
                choices=("all", "torn", "some"),
            )
        },
        _LOSSY,
    ),
    FaultClass(
        "disk.sync_error",
        "fsync returns EIO, and what it was to write is dropped; restarted at the end.",
        _ANYONE,
        _CRASH,
        {"count": Option(1, "syncs that fail", low=1)},
        _LOSSY,
    ),
    FaultClass(
        "disk.read_error",
        "The target is restarted, and reads return EIO; restarted at the end.",
        _ANYONE,
        _CRASH,
        {"count": Option(100, "reads that fail; the kernel tries some again", low=1)},
        _LOSSY,
    ),
    FaultClass(
        "disk.full",
        "Writes return ENOSPC (on a copy-on-write file system every write needs space).",
        _ANYONE,
        _CRASH,
        wants=_LOSSY,
    ),
    FaultClass(
        "disk.stall", "fsync does not return until the end.", _ANYONE, Fault.PAUSE, wants=_LOSSY
    ),
    FaultClass(
        "disk.slow",
        "fsync takes long.",
        _ANYONE,
        Fault.PAUSE,
        {"delay_ms": Option(200, "more than usual, milliseconds")},
        _LOSSY,
    ),
    FaultClass(
        "disk.bit_flip",
        "The target is stopped, bits of a file flip, it starts; undone at the end if it could not "
        "serve.",
        ("follower", "leader"),
        _CRASH | Fault.DISK_CORRUPTION,
        {"files": _FILES, "bits": Option(1, "how many", low=1, high=1000)},
    ),
    FaultClass(
        "disk.truncate",
        "The target is stopped, the end of a file is cut off, it starts; undone at the end if it "
        "could not serve.",
        ("follower", "leader"),
        _CRASH | Fault.DISK_CORRUPTION,
        {"files": _FILES, "bytes": Option(200, "of what was written", low=1)},
    ),
    FaultClass(
        "disk.wipe",
        "The target is down and its data are gone; they are put back at the end.",
        ("follower", "leader"),
        _CRASH,
    ),
)

_CLOCKS: Final = (
    FaultClass(
        "clock.skew",
        "The target's wall clock is wrong; at the end it jumps back.",
        _ANYONE,
        options={"by_ms": Option(60_000, "milliseconds, less than 0 for the past", low=-(10**12))},
        wants=frozenset({Want.CLOCK}),
    ),
    FaultClass(
        "clock.strobe",
        "The target's wall clock jumps to and fro.",
        _ANYONE,
        options={
            "by_ms": Option(60_000, "milliseconds", low=-(10**12)),
            "every_ms": Option(50, "between two jumps, milliseconds", low=1),
        },
        wants=frozenset({Want.CLOCK}),
    ),
)


def _admin(kind: str, text: str, *wants: Want, **options: Option) -> FaultClass:
    every = {"every_s": Option(0.5, "seconds between two calls", low=0.01)}
    targets = ("leader", "follower", "all")
    return FaultClass(kind, text, targets, Fault.NONE, {**every, **options}, frozenset(wants))


_ADMIN: Final = (
    _admin(
        "admin.compact",
        "The history is compacted, again and again.",
        Want.ADMIN,
        keep=Option(50, "revisions that are not compacted"),
    ),
    _admin("admin.defragment", "The target is defragmented, again and again.", Want.ADMIN),
    _admin("admin.snapshot", "The target's state is downloaded, again and again.", Want.ADMIN),
    _admin(
        "admin.transfer", "Leadership is handed on, again and again.", Want.ADMIN, Want.TRANSFER
    ),
)

_MEMBERSHIP: Final = (
    FaultClass(
        "member.add",
        "A new member is added as a learner, started and promoted; at the end the target is "
        "removed.",
        ("follower", "leader"),
        wants=frozenset({Want.MEMBERSHIP}),
    ),
    FaultClass(
        "member.remove",
        "The target is removed; at the end a new member takes its place, a learner first.",
        ("follower", "leader"),
        wants=frozenset({Want.MEMBERSHIP}),
    ),
)

FAULT_CLASSES: Final[Mapping[str, FaultClass]] = {
    one.kind: one
    for one in (
        *(*_NETWORK, *_PROCESSES, _FAILPOINT, *_DISKS, *_CLOCKS, *_ADMIN),
        *_MEMBERSHIP,
    )
}
"""Every class by its name."""


def needed(kind: str, target: str) -> Fault:
    """What an engine must survive to come through a fault of this kind on this target."""
    needs = FAULT_CLASSES[kind].needs
    at_once = kind != "proc.rolling_restart" and target in ("majority", "all")
    if needs & Fault.PROCESS_CRASH_MINORITY and at_once:
        needs |= Fault.PROCESS_CRASH_ALL
    return needs


def wanted(kind: str, options: Mapping[str, Value]) -> frozenset[Want]:
    """What a fault of this kind asks for: silence and one-way cuts are beyond Toxiproxy."""
    wants = FAULT_CLASSES[kind].wants
    silent = options.get("mode") == "stall" or options.get("shape") == "majorities-ring"
    if silent or options.get("direction", "both") != "both":
        wants |= _TOXID
    return wants
