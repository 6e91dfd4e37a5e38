"""The chapters on the cluster and on etcdctl, against the three nodes."""

from __future__ import annotations

import re
import signal
import urllib.request
from collections.abc import Callable

import pytest

from tests.tutorial.conftest import ADVERTISED
from tests.tutorial.shell import FIXED_PORTS, Running, typed, words
from tests.waiting import wait_until_sync

pytestmark = [FIXED_PORTS, pytest.mark.usefixtures("nodes")]

Terminal = Callable[[list[str]], Running]


def watchers() -> int:
    """How many watchers the first node has: kvctl asks it, at 127.0.0.1:2379."""
    with urllib.request.urlopen("http://127.0.0.1:2379/metrics", timeout=5) as answer:
        found = re.search(rb"^etcd_debugging_mvcc_watcher_total (\d+)", answer.read(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def watching(terminal: Terminal, line: str) -> Running:
    """Type a watch in a terminal of its own, and return once the server has it."""
    before = watchers()
    running = terminal(words(line))
    wait_until_sync(lambda: watchers() > before, 20, f"{line}: {running.path}")
    return running


def test_every_node_answers_with_the_right_value() -> None:
    line = f"etcdctl --endpoints http://{ADVERTISED[1]} set /cluster/name tizi365"
    assert typed(line).stdout == "tizi365\n"
    for client in ADVERTISED:
        line = f"etcdctl --endpoints http://{client} get /cluster/name"
        assert typed(line).stdout == "tizi365\n"


def test_help_names_endpoints() -> None:
    shown = typed("etcdctl -h")
    assert shown.status == 0
    for part in ("--endpoints", "set", "get", "rm", "watch"):
        assert part in shown.stdout


@pytest.mark.parametrize(
    "endpoints",
    [
        '"http://127.0.0.1:2379,http://127.0.0.1:4001"',
        '"http://127.0.0.1:4001,http://127.0.0.1:2379"',
    ],
)
def test_a_list_of_endpoints_of_which_one_is_dead(endpoints: str) -> None:
    assert typed(f"etcdctl  --endpoints {endpoints} set /config/name tizi365").status == 0
    assert typed(f"etcdctl  --endpoints {endpoints} get /config/name").stdout == "tizi365\n"


def test_set_get_rm() -> None:
    done = typed("etcdctl set /config/name tizi365")
    assert (done.stdout, done.stderr, done.status) == ("tizi365\n", "", 0)
    done = typed("etcdctl get /config/name")
    assert (done.stdout, done.stderr, done.status) == ("tizi365\n", "", 0)
    typed("etcdctl set foo bar")
    done = typed("etcdctl rm foo")
    assert (done.stdout, done.stderr, done.status) == ("PrevNode.Value: bar\n", "", 0)
    done = typed("etcdctl rm foo")
    assert (done.stdout, done.status) == ("", 4)
    assert re.fullmatch(r"Error:  100: Key not found \(/foo\) \[\d+\]\n", done.stderr)


def test_watch_a_directory(terminal: Terminal) -> None:
    shown = watching(terminal, "etcdctl watch -f -r /config")
    typed("etcdctl set /config/name 1232")
    typed("etcdctl set /configuration/name outside")
    typed("etcdctl set /config/ttl 1232")
    expected = "[set] /config/name\n1232\n[set] /config/ttl\n1232\n"
    wait_until_sync(lambda: len(shown.output()) >= len(expected), 20, shown.output())
    assert shown.output() == expected
    assert shown.end(signal.SIGINT) == 130


def test_watch_a_key(terminal: Terminal) -> None:
    shown = watching(terminal, "etcdctl watch -f /config/name")
    typed("etcdctl set /config/name 1")
    typed("etcdctl set /config/name/below outside")
    typed("etcdctl set /config/other outside")
    typed("etcdctl set /config/name 2")
    wait_until_sync(lambda: shown.output().endswith("2\n"), 20, shown.output())
    assert shown.output() == "1\n2\n"
    assert shown.process.poll() is None
    assert shown.end(signal.SIGINT) == 130


def test_watch_without_f_ends_after_one_change(terminal: Terminal) -> None:
    shown = watching(terminal, "etcdctl watch /config/name")
    typed("etcdctl set /config/name once")
    assert shown.process.wait(20) == 0
    assert shown.output() == "once\n"
