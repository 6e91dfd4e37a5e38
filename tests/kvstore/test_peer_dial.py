"""RAFTYARD_PEER_DIAL: where fault tests make members dial each other."""

from __future__ import annotations

import pytest

from consensus.errors import ConfigError
from consensus.peerdial import read_peer_dial


def test_nothing_changes_nothing() -> None:
    assert read_peer_dial("") == {}


def test_where_each_address_is_dialled() -> None:
    text = "127.0.0.1:1=127.0.0.1:91,127.0.0.1:2=127.0.0.1:92"
    assert read_peer_dial(text) == {"127.0.0.1:1": "127.0.0.1:91", "127.0.0.1:2": "127.0.0.1:92"}


@pytest.mark.parametrize("text", ["127.0.0.1:1", "127.0.0.1:1=nowhere", "n9=127.0.0.1:9"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"'{text}' should be host:port=host:port"):
        read_peer_dial(text)
