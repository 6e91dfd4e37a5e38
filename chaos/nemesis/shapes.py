"""The shapes of partitions: which flows between members each of them cuts."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from chaos.cluster.links import Flow, flows_between
from chaos.nemesis.plan import PlannedFault


def ring_flows(members: Sequence[str]) -> list[Flow]:
    """Cut so that each member hears the majority around it in a ring, no two the same one."""
    number = len(members)
    majority = number // 2 + 1
    cut = []
    for place, member in enumerate(members):
        first = place - majority // 2
        heard = {members[(first + step) % number] for step in range(majority)}
        cut += [(other, member) for other in members if other not in heard]
    return cut


def bridge_flows(members: Sequence[str]) -> list[Flow]:
    """Cut the first half from the last; the member in the middle sees both."""
    half = (len(members) - 1) // 2
    return flows_between([members[:half], members[half + 1 :]])


def isolated_flows(inside: Sequence[str], outside: Sequence[str], direction: str) -> list[Flow]:
    """Cut what those inside hear (in), say (out), or both."""
    hears = [(other, member) for member in inside for other in outside]
    says = [(member, other) for member in inside for other in outside]
    return {"in": hears, "out": says, "both": hears + says}[direction]


def flows_of(
    fault: PlannedFault, victims: Sequence[str], members: Sequence[str], rng: Random
) -> list[Flow]:
    """What a net.partition between members cuts, of any shape but "clients"."""
    others = [member for member in members if member not in victims]
    match fault.options["shape"]:
        case "isolate":
            return isolated_flows(victims, others, str(fault.options["direction"]))
        case "partial":
            one = victims[0]
            other = rng.choice([member for member in members if member != one])
            return [(one, other), (other, one)]
        case shape:
            shuffled = rng.sample(list(members), len(members))
            return ring_flows(shuffled) if shape == "majorities-ring" else bridge_flows(shuffled)
