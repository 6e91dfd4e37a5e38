"""Directed graphs with labelled edges: strong components, and short circles for explanations."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

Graph = Mapping[int, Mapping[int, str]]
"""For each node its successors, and the label of the edge to each."""


def components(graph: Graph, labels: frozenset[str]) -> Iterator[list[int]]:
    """Yield the strongly connected components of more than one node, over edges so labelled.

    Tarjan's algorithm ("Depth-first search and linear graph algorithms", 1972), without recursion.
    """
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    on_stack: set[int] = set()
    stack: list[int] = []
    for root in graph:
        if root in index:
            continue
        work: list[tuple[int, Iterator[int]]] = [(root, _next(graph, root, labels))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, successors = work[-1]
            for successor in successors:
                if successor not in index:
                    index[successor] = low[successor] = len(index)
                    stack.append(successor)
                    on_stack.add(successor)
                    work.append((successor, _next(graph, successor, labels)))
                    break
                if successor in on_stack:
                    low[node] = min(low[node], index[successor])
            else:
                work.pop()
                if work:
                    parent = work[-1][0]
                    low[parent] = min(low[parent], low[node])
                if low[node] == index[node]:
                    found = _pop(stack, on_stack, node)
                    if len(found) > 1:
                        yield found


def _next(graph: Graph, node: int, labels: frozenset[str]) -> Iterator[int]:
    return (to for to, label in graph.get(node, {}).items() if label in labels)


def _pop(stack: list[int], on_stack: set[int], node: int) -> list[int]:
    found = []
    while True:
        member = stack.pop()
        on_stack.discard(member)
        found.append(member)
        if member == node:
            return found


def shortest_path(
    graph: Graph, start: int, goal: int, labels: frozenset[str], within: frozenset[int]
) -> list[int] | None:
    """Return the nodes of a shortest path of at least one edge, both ends included, or None."""
    came_from: dict[int, int] = {}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for successor in _next(graph, node, labels):
            if successor == goal:
                path = [goal, node]
                while path[-1] != start:
                    path.append(came_from[path[-1]])
                return path[::-1]
            if successor in within and successor not in came_from and successor != start:
                came_from[successor] = node
                queue.append(successor)
    return None


def short_cycle(
    graph: Graph, component: Sequence[int], labels: frozenset[str], starts: Iterable[int]
) -> list[int] | None:
    """Return a short circle through one of ``starts``: its nodes, the first again at the end."""
    within = frozenset(component)
    best: list[int] | None = None
    for start in starts:
        path = shortest_path(graph, start, start, labels, within)
        if path is not None and (best is None or len(path) < len(best)):
            best = path
    return best
