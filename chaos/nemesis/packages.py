"""Packages: named mixes of faults, from which a seed draws plans.

``chaos run --faults kill,partition+pause`` and the matrix name packages. A package lists variants;
each drawn fault takes one of them, a target and values of its options. Packages that are mixed in
one cell take turns. Faults of the packages ``storm`` and ``churn`` overlap, and each storm has its
own few kinds (Groce and others, "Swarm Testing", ISSTA 2012).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Final

import attrs

from chaos.nemesis.plan import Plan, PlannedFault, fault_of
from chaos.nemesis.vocabulary import Value, Want, needed, wanted
from consensus.engine import Fault

SETTLE_S: Final = 1.0
"""Time before the first fault."""

HOLD_S: Final = (1.5, 2.5)
"""How long a fault lasts, from and to."""

PAUSE_S: Final = (1.0, 2.0)
"""Time without a fault after each one."""

STORM_KINDS: Final = (2, 4)
STORM_S: Final = (3.0, 5.0)
STORM_FAULTS: Final = (3, 6)

_ANYONE: Final = ("leader", "follower")


@attrs.frozen(slots=True)
class Variant:
    """One way in which a package strikes.

    Args:
        kind: the class of fault.
        targets: drawn from; if the leader is among them it comes first.
        values: of options, each drawn from what is listed.
        hold_s: how long, from and to.
    """

    kind: str
    targets: tuple[str, ...] = _ANYONE
    values: Mapping[str, tuple[Value, ...]] = attrs.field(factory=dict)
    hold_s: tuple[float, float] = HOLD_S

    @property
    def wants(self) -> frozenset[Want]:
        """What all that it may draw asks for."""
        always = {name: values[0] for name, values in self.values.items() if name != "mode"}
        return wanted(self.kind, always)

    def draw(self, at_s: float, rng: Random, *, first: bool, when_serving: bool) -> PlannedFault:
        """Draw one fault; the first of a run strikes the leader where it can."""
        target = self.targets[0] if first else rng.choice(self.targets)
        table: dict[str, Any] = {
            "kind": self.kind,
            "at": round(at_s, 3),
            "for": round(rng.uniform(*self.hold_s), 3),
            "target": target,
            "when": "serving" if when_serving else "",
        }
        table.update((name, rng.choice(values)) for name, values in self.values.items())
        return fault_of(table)


@attrs.frozen(slots=True)
class Package:
    """A named mix of faults."""

    name: str
    text: str
    variants: tuple[Variant, ...]
    overlap: bool = False
    """Whether its faults come several at once, a few kinds at a time."""
    surely: int = 0
    """Of overlapping ones: the first of each time is drawn from so many first variants, without
    which the package cannot be had."""

    @property
    def needs(self) -> Fault:
        """What an engine must survive to come through all that this package may draw."""
        needs = Fault.NONE
        for variant in self.variants:
            for target in variant.targets:
                needs |= needed(variant.kind, target)
        return needs

    @property
    def wants(self) -> frozenset[Want]:
        """What its faults ask for."""
        return frozenset[Want]().union(*(one.wants for one in self.variants))


def _shape(name: str, text: str, shape: str, *targets: str, **values: tuple[Value, ...]) -> Package:
    options = {"shape": (shape,), **values}
    return Package(name, text, (Variant("net.partition", targets, options),))


_SINGLE: Final = (
    Package("kill", "SIGKILL of one member", (Variant("proc.kill"),)),
    Package(
        "kill-majority", "SIGKILL of a majority at once", (Variant("proc.kill", ("majority",)),)
    ),
    Package("kill-all", "SIGKILL of all at once", (Variant("proc.kill", ("all",)),)),
    Package("pause", "SIGSTOP of one member", (Variant("proc.pause"),)),
    Package(
        "pause-majority",
        "SIGSTOP of a majority or all",
        (Variant("proc.pause", ("majority", "all")),),
    ),
    Package("starve", "a member gets the processor in short turns", (Variant("proc.starve"),)),
    Package(
        "restarts",
        "rolling restarts, and members killed again and again",
        (
            Variant("proc.restart_loop"),
            Variant("proc.rolling_restart", ("all",), {"graceful": (True, False)}),
        ),
    ),
    _shape("partition", "one member cut off", "isolate", *_ANYONE, mode=("close", "stall")),
    _shape("minority", "a minority cut off", "isolate", "minority", "majority"),
    _shape("majorities-ring", "each member hears another majority", "majorities-ring", "all"),
    _shape("bridge", "two halves, and one member that sees both", "bridge", "all"),
    _shape(
        "one-way",
        "a member that is not heard, or hears nothing",
        "isolate",
        *_ANYONE,
        direction=("in", "out"),
    ),
    _shape("partial", "one pair that cannot talk", "partial", *_ANYONE),
    _shape("clients", "members without their clients", "clients", "leader", "majority"),
    Package("flapping", "links that come and go", (Variant("net.flap"),)),
    Package("stall", "links that jam and burst", (Variant("net.stall", ("leader", "all")),)),
    Package(
        "slow-links", "delay and jitter on every peer link", (Variant("net.latency", ("all",)),)
    ),
    Package(
        "bad-links",
        "lost packets, little bandwidth, small pieces, resets, half-open connections",
        (
            Variant("net.loss", ("all",), {"links": ("peers", "all")}),
            Variant("net.bandwidth", ("all", "leader")),
            Variant("net.slicer", ("all",), {"links": ("all",)}),
            Variant("net.limit", ("all",)),
            Variant("net.reset", _ANYONE),
            Variant("net.swallow", _ANYONE),
        ),
    ),
    Package(
        "bad-messages",
        "messages between members vanish, repeat, overtake each other, are damaged",
        (
            Variant("net.drop", ("all",)),
            Variant("net.duplicate", ("all",)),
            Variant("net.reorder", ("all",)),
            Variant("net.corrupt", ("all",)),
        ),
    ),
)


_POINTS: Final = (
    *("wal.before_write", "wal.before_sync", "wal.after_sync"),
    *("send.before", "send.after", "apply.before", "apply.after"),
)
"""Failpoints that every machine on the native engine visits all the time."""

_DAMAGED: Final = ("follower",)

_MORE: Final = (
    Package(
        "failpoints",
        "crashes, errors and delays before and after each step",
        (
            Variant("proc.failpoint", values={"point": _POINTS, "nth": (1, 5, 40)}),
            Variant(
                "proc.failpoint", values={"point": _POINTS[:3], "action": ("error",), "nth": (5,)}
            ),
            Variant("proc.failpoint", values={"point": _POINTS, "action": ("delay",)}),
        ),
    ),
    Package(
        "power-loss",
        "SIGKILL, and what was not synced is lost",
        (
            Variant(
                "disk.power_loss",
                ("leader", "all", "minority"),
                {"leaves": ("all", "torn", "some")},
            ),
        ),
    ),
    Package(
        "disk-errors",
        "fsync and read fail once, the disk is full",
        (
            Variant("disk.sync_error"),
            Variant("disk.full"),
            Variant("disk.read_error", _DAMAGED),
        ),
    ),
    Package("slow-disk", "fsync stalls or is slow", (Variant("disk.stall"), Variant("disk.slow"))),
    Package(
        "damage",
        "flipped bits, cut files, a wiped disk, on one member",
        (
            Variant("disk.bit_flip", _DAMAGED, {"files": ("log", "database"), "bits": (1, 20)}),
            Variant("disk.wipe", _DAMAGED),
            Variant("disk.truncate", _DAMAGED, {"files": ("log", "database")}),
        ),
    ),
    Package(
        "clocks",
        "wall clocks that are wrong and jump",
        (
            Variant("clock.skew", ("leader", "minority"), {"by_ms": (-3_600_000, 3_600_000)}),
            Variant("clock.strobe", ("leader", "all")),
        ),
    ),
    Package(
        "admin",
        "compaction, defragmentation, snapshots, a member replaced",
        (
            Variant("admin.compact", ("leader",)),
            Variant("admin.defragment", ("leader", "all")),
            Variant("admin.snapshot", ("leader", "all")),
            Variant("member.remove"),
        ),
    ),
    Package("transfer", "leadership handed on", (Variant("admin.transfer", ("leader",)),)),
    Package(
        "membership",
        "members join as learners, are promoted, are removed, the leader too",
        (Variant("member.remove"), Variant("member.add")),
    ),
    Package(
        "churn",
        "members come and go while others are killed, paused, cut off",
        (
            *(Variant("member.remove"), Variant("member.add")),
            *(Variant("proc.kill"), Variant("proc.pause"), Variant("net.partition")),
            Variant("net.latency", ("all",)),
        ),
        overlap=True,
        surely=2,
    ),
)


def _storm() -> Package:
    """Everything that a target survives whoever it is, in one package."""
    calm = ("net.latency", "net.loss", "net.partition", "net.flap", "net.stall")
    kinds = (*calm, "proc.kill", "proc.pause", "proc.starve")
    variants = tuple(
        Variant(kind, (*_ANYONE, "minority") if kind != "net.latency" else ("all",))
        for kind in kinds
    )
    return Package("storm", "several faults at once", variants, overlap=True)


PACKAGES: Final[Mapping[str, Package]] = {one.name: one for one in (*_SINGLE, *_MORE, _storm())}
"""Every package by its name."""


def draw_plan(names: Sequence[str], seconds: float, seed: int, lacking: frozenset[Want]) -> Plan:
    """Draw the plan of a run; the same arguments give the same plan.

    Args:
        names: of packages; they take turns. None gives an empty plan.
        seconds: length of the load; the first fault comes whether it ends in time or not.
        seed: of every choice.
        lacking: what cannot be had: variants that want it are left out, and connections are not
            silently cut without toxid.
    """
    rng = Random(f"{seed}/plan")
    packages = [PACKAGES[name] for name in names]
    faults: list[PlannedFault] = []
    at_s = SETTLE_S
    turn = 0
    while packages:
        package = packages[turn % len(packages)]
        drawn = _turn(package, at_s, rng, lacking, first=not faults, round_=turn // len(packages))
        ends = max((fault.at_s + fault.for_s for fault in drawn), default=seconds + 1)
        if not drawn or (faults and ends > seconds):
            break
        faults.extend(drawn)
        at_s = ends + rng.uniform(*PAUSE_S)
        turn += 1
    return Plan(tuple(faults), seed)


def _turn(
    package: Package,
    at_s: float,
    rng: Random,
    lacking: frozenset[Want],
    *,
    first: bool,
    round_: int,
) -> list[PlannedFault]:
    variants = [one for one in package.variants if not one.wants & lacking]
    sure = package.variants[: package.surely] or variants
    if not variants or any(one.wants & lacking for one in sure):
        return []
    if not package.overlap:
        variant = _possible(variants[round_ % len(variants)], lacking)
        return [variant.draw(at_s, rng, first=first, when_serving=True)]
    kinds = rng.sample(variants, min(len(variants), rng.randint(*STORM_KINDS)))
    ends = at_s + rng.uniform(*STORM_S)
    drawn = []
    for number in range(rng.randint(*STORM_FAULTS)):
        begins = at_s if number == 0 else rng.uniform(at_s, ends - HOLD_S[0])
        choices = kinds if number or not package.surely else sure
        variant = _possible(rng.choice(choices), lacking)
        drawn.append(variant.draw(begins, rng, first=first and not number, when_serving=not number))
    return sorted(drawn, key=lambda fault: fault.at_s)


def _possible(variant: Variant, lacking: frozenset[Want]) -> Variant:
    """The same without values that need toxid, where there is none."""
    if Want.TOXID not in lacking or "mode" not in variant.values:
        return variant
    return attrs.evolve(variant, values={**variant.values, "mode": ("close",)})
