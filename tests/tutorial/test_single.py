"""One node: ``./etcd`` without any flag, a first key, and ``kill``."""

from __future__ import annotations

import time
from pathlib import Path

from tests.tutorial.shell import FIXED_PORTS, Running, require_free, typed, words

pytestmark = FIXED_PORTS


def test_one_node_with_its_defaults(tmp_path: Path) -> None:
    require_free(["127.0.0.1:2379", "127.0.0.1:2380"])
    server = Running(words("./etcd"), tmp_path / "log", tmp_path)
    try:
        server.wait_healthy("localhost:2379")
        assert "2379" in server.output()
        done = typed("./etcdctl set /config/title tizi365")
        assert (done.stdout, done.stderr, done.status) == ("tizi365\n", "", 0)
        began = time.monotonic()
        killed = Running(["kill", str(server.process.pid)], tmp_path / "killed")
        assert killed.process.wait(10) == 0
        assert server.process.wait(10) == 0
        assert time.monotonic() - began < 2
        assert "Traceback" not in server.output()
        assert (tmp_path / "default.etcd").is_dir()

        server = Running(words("./etcd"), tmp_path / "log2", tmp_path)
        server.wait_healthy("localhost:2379")
        assert typed("./etcdctl get /config/title").stdout == "tizi365\n"
        assert server.end() == 0
    finally:
        server.make_sure_that_it_ended()
