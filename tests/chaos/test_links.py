"""Which links a partition of each shape cuts, and cuts of several faults on one link."""

from __future__ import annotations

import pytest

from chaos.cluster.links import Cuts, LinkState, flows_between, peer_links, states_of
from chaos.nemesis.shapes import bridge_flows, isolated_flows, ring_flows

THREE = ["n1", "n2", "n3"]
FIVE = ["n1", "n2", "n3", "n4", "n5"]
CLOSED, STALLED, OPEN = LinkState.CLOSED, LinkState.STALLED, LinkState.OPEN


def test_every_ordered_pair_has_a_link() -> None:
    assert len(peer_links(FIVE)) == 20


def test_links_between_groups_are_cut_both_ways() -> None:
    states = states_of(flows_between([["n1"], ["n2", "n3"]]), "close")
    cut = ("n1-to-n2", "n1-to-n3", "n2-to-n1", "n3-to-n1")
    assert states == dict.fromkeys(cut, CLOSED)
    assert set(states_of(flows_between([["n1"], ["n2"]]), "stall").values()) == {STALLED}


def test_one_way_is_upstream_on_one_link_and_downstream_on_the_other() -> None:
    for mode in ("close", "stall"):
        assert states_of([("n1", "n2")], mode) == {
            "n1-to-n2": LinkState.STALLED_UPSTREAM,
            "n2-to-n1": LinkState.STALLED_DOWNSTREAM,
        }


def test_in_and_out_of_an_isolated_member() -> None:
    assert sorted(isolated_flows(["n1"], ["n2", "n3"], "in")) == [("n2", "n1"), ("n3", "n1")]
    assert sorted(isolated_flows(["n1"], ["n2", "n3"], "out")) == [("n1", "n2"), ("n1", "n3")]
    assert len(isolated_flows(["n1"], ["n2", "n3"], "both")) == 4


@pytest.mark.parametrize("members", [THREE, ["n1", "n2", "n3", "n4"], FIVE])
def test_each_hears_another_majority_in_a_ring(members: list[str]) -> None:
    cut = ring_flows(members)
    heard = {
        member: frozenset(other for other in members if (other, member) not in cut)
        for member in members
    }
    assert all(member in others for member, others in heard.items())
    assert {len(others) for others in heard.values()} == {len(members) // 2 + 1}
    assert len(set(heard.values())) == len(members)


def test_a_bridge_sees_both_halves() -> None:
    assert set(bridge_flows(THREE)) == {("n1", "n3"), ("n3", "n1")}
    cut = set(bridge_flows(FIVE))
    assert not any("n3" in flow for flow in cut)
    assert len(cut) == 8


def test_a_link_has_the_sum_of_its_cuts() -> None:
    cuts = Cuts()
    assert cuts.cut("a", {"x": CLOSED, "y": LinkState.STALLED_UPSTREAM}) == {
        "x": CLOSED,
        "y": LinkState.STALLED_UPSTREAM,
    }
    assert cuts.cut("b", {"x": STALLED, "y": LinkState.STALLED_DOWNSTREAM}) == {
        "x": CLOSED,
        "y": STALLED,
    }
    assert cuts.heal("a") == {"x": STALLED, "y": LinkState.STALLED_DOWNSTREAM}
    assert cuts.heal("b") == {"x": OPEN, "y": OPEN}
    assert cuts.heal("b") == {}


def test_an_owner_that_cuts_again_replaces_its_cuts() -> None:
    cuts = Cuts()
    cuts.cut("a", {"x": CLOSED})
    assert cuts.cut("a", {"y": CLOSED}) == {"x": OPEN, "y": CLOSED}
    assert cuts.heal_all() == {"y": OPEN}
