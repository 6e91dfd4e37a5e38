"""The tutorial's command lines, one by one, with kvstore for etcd and kvctl for etcdctl."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.interop import free_ports
from tests.kvstore.client.servers import cluster
from tests.kvstore.kvctl.running import clean_environment, kvctl
from tests.waiting import wait_until_sync


def test_the_tutorial_line_by_line(tmp_path: Path) -> None:
    with cluster("kvstore", tmp_path) as (server,):
        both = f"http://{server.endpoint},http://127.0.0.1:{free_ports(1)[0]}"
        here = {"ETCDCTL_API": "2", "ETCDCTL_ENDPOINTS": server.endpoint}
        asked = kvctl(("-h",), here)
        assert asked.status == 0
        assert b"--endpoints" in asked.stdout
        assert kvctl(("set", "/config/title", "tizi365"), here).stdout == b"tizi365\n"
        assert kvctl(("set", "/config/name", "tizi365"), here).stdout == b"tizi365\n"
        assert kvctl(("get", "/config/name"), here).stdout == b"tizi365\n"
        named = kvctl(("--endpoints", both, "get", "/config/name"), {"ETCDCTL_API": "2"})
        assert named.stdout == b"tizi365\n"
        kvctl(("set", "foo", "bar"), here)
        assert kvctl(("rm", "foo"), here).stdout == b"PrevNode.Value: bar\n"
        output = tmp_path / "watched"
        with output.open("wb") as out:
            watching = subprocess.Popen(
                [sys.executable, "-m", "kvstore.cli.kvctl", "watch", "-f", "-r", "/config"],
                env=clean_environment(here),
                stdout=out,
                stderr=out,
            )
        try:
            # The watch has no sign of its beginning: what it sees first shows that it has begun.
            def begun() -> bool:
                kvctl(("set", "/config/begun", "1"), here)
                return output.read_bytes() != b""

            wait_until_sync(begun, 20, "the watch sees a change")
            before = len(output.read_bytes())
            kvctl(("set", "/config/name", "1232"), here)
            kvctl(("set", "/config/ttl", "1232"), here)
            shown = b"[set] /config/name\n1232\n[set] /config/ttl\n1232\n"
            wait_until_sync(lambda: output.read_bytes().endswith(shown), 20, str(output))
            assert output.read_bytes()[:before].startswith(b"[set] /config/begun\n1\n")
            watching.send_signal(signal.SIGINT)
            assert watching.wait(10) == 130
        finally:
            if watching.poll() is None:
                watching.kill()
                watching.wait()
