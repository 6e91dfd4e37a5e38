"""Strict serializability of transactions that append to lists and read them.

A list tells its own history: a read shows every append before it, in order. So from the reads alone
follow, for each list, the order of the appends (ww), who read whose append (wr), and which append a
reader did not see yet (rw). With an edge from each transaction to those that began after it had
ended (rt), a history is strictly serializable exactly if this graph has no circle, once every
append was read. Kinds of circle are named as Adya does ("Generalized isolation level definitions",
2000), as in Elle (Kingsbury and Alvaro, 2020):

======== ===================================================================================
G0       only ww: writes of two transactions overwrite each other
G1c      ww and wr: each saw the other's writes
G-single one rw: a read missed a write that lies before it (read skew, lost update, stale read)
G2       several rw (write skew)
======== ===================================================================================

rt edges would be quadratic: instead each end of a transaction is a node of its own in a chain by
time, from which those that begin later hang.

A transaction is a ``txn`` (or ``read``, if it only reads) whose ``input`` is a list of
``["append", list, element]`` and ``["r", list, null]``; its ``output`` is the same with what was
read. Elements are unique within a list.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Final

import attrs

from chaos.checkers.graphs import components, short_cycle, shortest_path
from chaos.history.format import History, Operation, Outcome
from chaos.verdict import CheckResult, Findings, Kind, Verdict

CHECKER: Final = "list-append"
STARTS_MAX: Final = 100
"""Nodes of a component from which a short circle is looked for."""

WW: Final = "ww"
WR: Final = "wr"
RW: Final = "rw"
RT: Final = "rt"

Element = Any
_Place = tuple[str, Element]


@attrs.define(slots=True)
class _Facts:
    """What the transactions say about the lists."""

    writers: dict[_Place, Operation] = attrs.field(factory=dict)
    last_of: dict[tuple[int, str], Element] = attrs.field(factory=dict)
    reads: list[tuple[Operation, str, tuple[Element, ...]]] = attrs.field(factory=list)
    orders: dict[str, tuple[Element, ...]] = attrs.field(factory=dict)


def check_list_append(history: History) -> CheckResult:
    """Look for every anomaly of the table above; ``unknown`` if nothing was read."""
    findings = Findings()
    transactions = [operation for operation in history.operations if operation.f in ("txn", "read")]
    facts = _gather(transactions, findings)
    _order(facts, findings)
    _check_reads(facts, findings)
    by_id = {operation.id: operation for operation in transactions}
    committed = _committed(transactions, facts)
    graph = _graph(committed, facts)
    _find_cycles(graph, by_id, facts, findings)
    return findings.result(CHECKER, Verdict.OK if facts.reads else Verdict.UNKNOWN)


def _gather(transactions: Sequence[Operation], findings: Findings) -> _Facts:
    facts = _Facts()
    for operation in transactions:
        for kind, key, element in operation.input:
            if kind == "append":
                facts.writers[key, element] = operation
                facts.last_of[operation.id, key] = element
        if operation.outcome is not Outcome.OK:
            continue
        own: dict[str, list[Element]] = {}
        before: dict[str, tuple[Element, ...]] = {}
        for kind, key, seen in operation.output:
            if kind == "append":
                own.setdefault(key, []).append(seen)
                continue
            mine = own.get(key, [])
            elements = tuple(seen)
            cut = len(elements) - len(mine)
            outer = elements[: max(cut, 0)]
            if list(elements[max(cut, 0) :]) != mine or before.get(key, outer) != outer:
                findings.add(
                    Kind.INTERNAL,
                    f"transaction {operation.id} read {key} as {_short(elements)} after it had "
                    f"appended {mine} to {_short(before.get(key, outer))}",
                    (operation.id,),
                )
            before[key] = outer
            facts.reads.append((operation, key, outer))
    return facts


def _order(facts: _Facts, findings: Findings) -> None:
    """Take each list's longest read as its order; every other read must be a beginning of it."""
    longest: dict[str, tuple[Operation, tuple[Element, ...]]] = {}
    for operation, key, elements in facts.reads:
        if key not in longest or len(elements) > len(longest[key][1]):
            longest[key] = operation, elements
    for key, (_, elements) in longest.items():
        facts.orders[key] = elements
    blamed = set()
    for operation, key, elements in facts.reads:
        reader, order = longest[key]
        if len(set(elements)) != len(elements):
            findings.add(
                Kind.DUPLICATE_ELEMENT,
                f"transaction {operation.id} read {key} as {_short(elements)}",
                (operation.id,),
            )
        if elements != order[: len(elements)] and (key, operation.id) not in blamed:
            blamed.add((key, operation.id))
            findings.add(
                Kind.INCOMPATIBLE_ORDER,
                f"transaction {operation.id} read {key} as {_short(elements)}, transaction "
                f"{reader.id} as {_short(order)}",
                (operation.id, reader.id),
            )


def _check_reads(facts: _Facts, findings: Findings) -> None:
    """G1a, G1b, and elements that nobody appended."""
    known: dict[str, set[Element]] = {}
    half: set[_Place] = set()
    for operation, key, elements in facts.reads:
        checked = known.setdefault(key, set())
        for element in set(elements) - checked:
            checked.add(element)
            _check_element(operation, key, element, facts, findings)
        if not elements:
            continue
        last = elements[-1]
        writer = facts.writers.get((key, last))
        if writer is None or writer is operation or (key, last) in half:
            continue
        if facts.last_of[writer.id, key] != last:
            half.add((key, last))
            findings.add(
                Kind.G1B,
                f"transaction {operation.id} read {key} up to {last!r}, after which transaction "
                f"{writer.id} appended more",
                (writer.id, operation.id),
            )


def _check_element(
    operation: Operation, key: str, element: Element, facts: _Facts, findings: Findings
) -> None:
    """The first read of an element: somebody appended it, and was not aborted."""
    writer = facts.writers.get((key, element))
    text = f"transaction {operation.id} read {element!r} in {key}"
    if writer is None:
        findings.add(Kind.READ_OF_NOTHING, f"{text}, which nobody appended", (operation.id,))
    elif writer.outcome is Outcome.FAIL:
        text += f", which transaction {writer.id} appended and which was aborted"
        findings.add(Kind.G1A, text, (writer.id, operation.id))


def _committed(transactions: Sequence[Operation], facts: _Facts) -> list[Operation]:
    """Those that are known to have been done: acknowledged, or seen."""
    seen = {
        facts.writers[key, element].id
        for key, order in facts.orders.items()
        for element in order
        if (key, element) in facts.writers
    }
    return [
        operation
        for operation in transactions
        if operation.outcome is Outcome.OK
        or (operation.outcome is Outcome.UNKNOWN and operation.id in seen)
    ]


class _Builder:
    """Collects the edges between transactions that are known to have been done."""

    def __init__(self, committed: Sequence[Operation]) -> None:
        self.known = {operation.id for operation in committed}
        self.graph: dict[int, dict[int, str]] = {operation.id: {} for operation in committed}

    def add(self, source: Operation | None, target: Operation | None, label: str) -> None:
        """Add an edge between two different known transactions; the strongest label stays."""
        if source is None or target is None or source.id == target.id:
            return
        if source.id in self.known and target.id in self.known:
            self.graph[source.id].setdefault(target.id, label)


def _graph(committed: Sequence[Operation], facts: _Facts) -> dict[int, dict[int, str]]:
    builder = _Builder(committed)
    orders = facts.orders
    unread: dict[str, list[Operation]] = {}
    in_order = {key: set(order) for key, order in orders.items()}
    for (key, element), writer in facts.writers.items():
        # Acknowledged and never read: it lies behind everything that was.
        if writer.outcome is Outcome.OK and element not in in_order.get(key, ()):
            unread.setdefault(key, []).append(writer)
            if orders.get(key):
                builder.add(facts.writers.get((key, orders[key][-1])), writer, WW)
    for key, order in orders.items():
        for one, other in itertools.pairwise(order):
            builder.add(facts.writers.get((key, one)), facts.writers.get((key, other)), WW)
    for operation, key, elements in facts.reads:
        if elements:
            builder.add(facts.writers.get((key, elements[-1])), operation, WR)
    for operation, key, elements in facts.reads:
        order = orders[key]
        if len(elements) < len(order):
            builder.add(operation, facts.writers.get((key, order[len(elements)])), RW)
        else:
            for writer in unread.get(key, ()):
                builder.add(operation, writer, RW)
    _add_real_time(builder.graph, committed)
    return builder.graph


def _add_real_time(graph: dict[int, dict[int, str]], committed: Sequence[Operation]) -> None:
    """Hang the transactions into a chain of ends; its nodes are negative numbers."""
    ended = sorted(
        (operation for operation in committed if operation.end is not None),
        key=lambda operation: operation.end or 0,
    )
    ends = [operation.end or 0 for operation in ended]
    for place, operation in enumerate(ended):
        node = -place - 1
        graph[node] = {node - 1: RT} if place + 1 < len(ended) else {}
        graph[operation.id].setdefault(node, RT)
    for operation in committed:
        place = bisect_left(ends, operation.start) - 1
        if place >= 0:
            graph[-place - 1].setdefault(operation.id, RT)


def _find_cycles(
    graph: dict[int, dict[int, str]],
    by_id: dict[int, Operation],
    facts: _Facts,
    findings: Findings,
) -> None:
    """Name each component by the least kind of circle that is in it."""
    blamed: set[int] = set()
    for kind, allowed in (
        (Kind.G0, frozenset({WW, RT})),
        (Kind.G1C, frozenset({WW, WR, RT})),
    ):
        for component in components(graph, allowed):
            own = [node for node in component if node >= 0]
            if blamed.isdisjoint(own):
                blamed.update(own)
                cycle = short_cycle(graph, component, allowed, sorted(own)[:STARTS_MAX])
                _report(kind, cycle, graph, findings)
    everything = frozenset({WW, WR, RW, RT})
    for component in components(graph, everything):
        own = sorted(node for node in component if node >= 0)
        if not blamed.isdisjoint(own):
            continue
        single = _single(graph, own, frozenset(component))
        if single is not None:
            _report(Kind.G_SINGLE, single, graph, findings)
        else:
            cycle = short_cycle(graph, component, everything, own[:STARTS_MAX])
            _report(Kind.G2, cycle, graph, findings)


def _single(
    graph: dict[int, dict[int, str]], own: Sequence[int], within: frozenset[int]
) -> list[int] | None:
    """A circle with exactly one rw edge, or None."""
    others = frozenset({WW, WR, RT})
    best: list[int] | None = None
    for reader in own[:STARTS_MAX]:
        for writer, label in graph[reader].items():
            if label != RW or writer not in within:
                continue
            path = shortest_path(graph, writer, reader, others, within)
            if path is not None and (best is None or len(path) + 1 < len(best)):
                best = [reader, *path]
    return best


_WORDS: Final = {
    WW: "wrote before",
    WR: "was read by",
    RW: "did not see",
    RT: "ended before the start of",
}


def _report(
    kind: Kind, cycle: Sequence[int] | None, graph: dict[int, dict[int, str]], findings: Findings
) -> None:
    """Tell a circle in words: the nodes of time between two transactions fall together."""
    if cycle is None:
        return
    steps: list[tuple[int, str]] = []
    for node, following in itertools.pairwise(cycle):
        if node >= 0:
            steps.append((node, RT if following < 0 else graph[node][following]))
    targets = [node for node, _ in steps[1:]] + [steps[0][0]]
    text = ", ".join(
        f"transaction {node} {_WORDS[label]} {target}"
        for (node, label), target in zip(steps, targets, strict=True)
    )
    findings.add(kind, text, tuple(node for node, _ in steps))


def _short(elements: Sequence[Element]) -> str:
    if len(elements) <= 8:
        return str(list(elements))
    return f"[... {len(elements) - 4} more, {', '.join(map(repr, elements[-4:]))}]"
