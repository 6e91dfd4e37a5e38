"""RAFTYARD_PEER_DIAL: where fault tests make members dial each other."""

from __future__ import annotations

import pytest

from consensus.errors import ConfigError
from consensus.peerdial import read_peer_dial

MEMBERS = {"n1": "127.0.0.1:1", "n2": "127.0.0.1:2"}


def test_nothing_changes_nothing() -> None:
    assert read_peer_dial("", MEMBERS) == {}


def test_addresses_by_member() -> None:
    text = "n1=127.0.0.1:91,n2=127.0.0.1:92"
    assert read_peer_dial(text, MEMBERS) == {"n1": "127.0.0.1:91", "n2": "127.0.0.1:92"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n1", "'n1' should be name=host:port"),
        ("n1=nowhere", "should be name=host:port"),
        ("n9=127.0.0.1:9", "'n9' is not one of n1, n2"),
    ],
)
def test_nonsense_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_peer_dial(text, MEMBERS)
