"""A plan of faults: a TOML file, written by hand or drawn from a seed, for processes and simulator.

    version = 1
    seed = 7841                      # of what the plan leaves open: which follower, which pair

    [[fault]]
    kind = "net.partition"           # see ``chaos.nemesis.vocabulary``, or ``chaos plan --list``
    at = 3.2                         # seconds after the load began
    for = 2.0                        # seconds
    target = "leader"                # or follower, minority, majority, all, or a member: "n2"
    shape = "isolate"                # what remains are the options of the kind

    [[fault]]
    kind = "proc.kill"
    at = 4.0
    for = 0.8
    when = "serving"                 # and not before all earlier ones ended and every member serves

A plan names roles, not members: who holds a role is known only when the fault begins, and the
history then says who it was. Faults that overlap in time are there together.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import attrs

from chaos.nemesis.vocabulary import (
    FAULT_CLASSES,
    ROLES,
    FaultClass,
    Option,
    Value,
    Want,
    needed,
    wanted,
)
from consensus.engine import Fault

PLAN_VERSION: Final = 1
FAULTS_MAX: Final = 1000
SECONDS_MAX: Final = 86_400.0
_OWN: Final = ("kind", "at", "for", "target", "when")
_SERVING: Final = "serving"


class PlanError(ValueError):
    """A plan cannot be read or carried out; the text says where and what to do."""


@attrs.frozen(slots=True)
class PlannedFault:
    """One fault of a plan.

    Args:
        kind: its class.
        at_s: seconds after the start of the load.
        for_s: how long it lasts.
        target: a role, or a member's name.
        when_serving: whether it waits until all earlier faults ended and every member serves.
        options: all options of its class.
    """

    kind: str
    at_s: float
    for_s: float
    target: str
    when_serving: bool = False
    options: Mapping[str, Value] = attrs.field(factory=dict)

    @property
    def needs(self) -> Fault:
        """What an engine must survive to come through it."""
        return needed(self.kind, self.target)

    @property
    def wants(self) -> frozenset[Want]:
        """What it asks of the place where it happens."""
        return wanted(self.kind, self.options)

    def overlaps(self, other: PlannedFault) -> bool:
        """Whether both are there at some moment, as planned."""
        return self.at_s < other.at_s + other.for_s and other.at_s < self.at_s + self.for_s

    @property
    def label(self) -> str:
        """For people: kind, target, and the options that are not as usual."""
        known = FAULT_CLASSES[self.kind].options
        unusual = [
            str(value) if isinstance(value, str) else f"{name} {value:g}"
            for name, value in self.options.items()
            if value != known[name].default
        ]
        return f"{self.kind} of {', '.join((self.target, *unusual))}"

    def as_table(self) -> dict[str, Value]:
        """As it stands in a plan's file; options that are as usual are left out."""
        table: dict[str, Value] = {"kind": self.kind, "at": self.at_s, "for": self.for_s}
        table["target"] = self.target
        if self.when_serving:
            table["when"] = _SERVING
        known = FAULT_CLASSES[self.kind].options
        table.update(
            (name, value) for name, value in self.options.items() if value != known[name].default
        )
        return table


@attrs.frozen(slots=True)
class Plan:
    """Faults, in the order in which they begin, and the seed of what they leave open."""

    faults: tuple[PlannedFault, ...] = ()
    seed: int = 0

    @property
    def seconds(self) -> float:
        """When the last fault ends, if none is late."""
        return max((fault.at_s + fault.for_s for fault in self.faults), default=0.0)

    @property
    def needs(self) -> Fault:
        """What an engine must survive to come through all of it."""
        needs = Fault.NONE
        for fault in self.faults:
            needs |= fault.needs
        crashes = [one for one in self.faults if one.needs & Fault.PROCESS_CRASH_MINORITY]
        if any(one.overlaps(other) for one, other in combinations(crashes, 2)):
            needs |= Fault.PROCESS_CRASH_ALL
        return needs

    @property
    def wants(self) -> frozenset[Want]:
        """What its faults ask for."""
        return frozenset[Want]().union(*(fault.wants for fault in self.faults))

    @property
    def newcomers(self) -> int:
        """How many new members its faults bring."""
        return sum(Want.MEMBERSHIP in fault.wants for fault in self.faults)

    def without(self, dropped: Iterable[int]) -> Plan:
        """The same plan without the faults at these places (from 0): for shrinking."""
        gone = set(dropped)
        kept = [fault for place, fault in enumerate(self.faults) if place not in gone]
        return attrs.evolve(self, faults=tuple(kept))

    def as_toml(self) -> str:
        """The plan as the text of a file; ``parse_plan`` reads it back."""
        lines = [f"version = {PLAN_VERSION}", f"seed = {self.seed}"]
        for fault in self.faults:
            lines += ["", "[[fault]]"]
            lines += [f"{name} = {_toml(value)}" for name, value in fault.as_table().items()]
        return "\n".join(lines) + "\n"

    def as_json(self) -> dict[str, Any]:
        """For the history's header; ``plan_of`` reads it back."""
        return {
            "version": PLAN_VERSION,
            "seed": self.seed,
            "fault": [fault.as_table() for fault in self.faults],
        }


def read_plan(path: Path) -> Plan:
    """Read a plan's file.

    Raises:
        PlanError: it cannot be read, or is no plan.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"cannot read {path}: {error}") from error
    try:
        return parse_plan(text)
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from error


def parse_plan(text: str) -> Plan:
    """Read a plan from TOML text.

    Raises:
        PlanError: it is no plan.
    """
    try:
        return plan_of(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise PlanError(f"not TOML: {error}") from error


def plan_of(document: Mapping[str, Any]) -> Plan:
    """Read a plan from its parsed form.

    Raises:
        PlanError: it is no plan; the text names the fault by its number, from 1.
    """
    unknown = set(document) - {"version", "seed", "fault"}
    if unknown:
        raise PlanError(
            f"{', '.join(sorted(unknown))}: not known here; a plan has version, seed and [[fault]]"
        )
    version = document.get("version")
    if version != PLAN_VERSION:
        raise PlanError(f"version = {version}: this program reads version {PLAN_VERSION}")
    seed = document.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise PlanError(f"seed = {seed!r}: should be a whole number")
    tables = document.get("fault", [])
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        raise PlanError("fault should be a list of tables: [[fault]]")
    if len(tables) > FAULTS_MAX:
        raise PlanError(f"{len(tables)} faults; a plan may have {FAULTS_MAX}")
    faults = []
    for number, table in enumerate(tables, start=1):
        try:
            faults.append(fault_of(table))
        except PlanError as error:
            raise PlanError(f"fault {number}: {error}") from error
    return Plan(tuple(sorted(faults, key=lambda fault: fault.at_s)), seed)


def fault_of(table: Mapping[str, Any]) -> PlannedFault:
    """Read one fault; options that are not given are as usual.

    Raises:
        PlanError: something is unknown, of the wrong type or out of range.
    """
    kind = table.get("kind")
    known = FAULT_CLASSES.get(kind) if isinstance(kind, str) else None
    if known is None:
        raise PlanError(f"kind = {kind!r}: not a fault; there are {', '.join(FAULT_CLASSES)}")
    unknown = set(table) - set(_OWN) - set(known.options)
    if unknown:
        takes = ", ".join((*_OWN, *known.options))
        raise PlanError(f"{', '.join(sorted(unknown))}: {kind} does not take it; it takes {takes}")
    when = table.get("when", "")
    if when not in ("", _SERVING):
        raise PlanError(f'when = {when!r}: can only be "{_SERVING}", or left out')
    return PlannedFault(
        kind=known.kind,
        at_s=_seconds(table, "at"),
        for_s=_seconds(table, "for"),
        target=_target(known, table.get("target", known.targets[0])),
        when_serving=when == _SERVING,
        options={
            name: _value(name, option, table.get(name, option.default))
            for name, option in known.options.items()
        },
    )


def _seconds(table: Mapping[str, Any], name: str) -> float:
    value = table.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PlanError(f"{name} = {value!r}: should be a number of seconds")
    if not 0 <= value <= SECONDS_MAX:
        raise PlanError(f"{name} = {value:g}: should be from 0 to {SECONDS_MAX:g} seconds")
    return float(value)


def _target(known: FaultClass, target: Any) -> str:
    is_member = isinstance(target, str) and target[:1] == "n" and target[1:].isdigit()
    if target in known.targets or (is_member and set(known.targets) & set(ROLES[:2])):
        return str(target)
    raise PlanError(
        f"target = {target!r}: {known.kind} strikes {', '.join(known.targets)}, "
        "or a member by its name, such as n2"
    )


def _value(name: str, option: Option, value: Any) -> Value:
    default = option.default
    if isinstance(default, bool) or isinstance(value, bool):
        if not (isinstance(default, bool) and isinstance(value, bool)):
            raise PlanError(f"{name} = {value!r}: should be like {default!r}")
        return value
    if isinstance(default, str):
        if value not in option.choices:
            raise PlanError(f"{name} = {value!r}: should be one of {', '.join(option.choices)}")
        return str(value)
    if not isinstance(value, int | float) or (isinstance(default, int) and value != int(value)):
        kind = "whole number" if isinstance(default, int) else "number"
        raise PlanError(f"{name} = {value!r}: should be a {kind} ({option.text})")
    if not option.low <= value <= option.high:
        raise PlanError(
            f"{name} = {value:g}: should be from {option.low:g} to {option.high:g} ({option.text})"
        )
    return type(default)(value)


def _toml(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    return repr(value)
