"""``make run``: three members in one terminal."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import grpc

from kvstore.pb import etcdserverpb_pb2 as pb
from tests.waiting import wait_until_sync

COMMAND = (sys.executable, "-m", "kvstore.cli.cluster")
PORTS = (2379, 22379, 32379, 2380, 22380, 32380)


def free_offset() -> int:
    """Return an offset at which all six ports are free just now."""
    for offset in range(200 + os.getpid() % 500, 30_000, 37):
        taken = []
        for port in PORTS:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if port + offset > 65_535 or probe.connect_ex(("127.0.0.1", port + offset)) == 0:
                    taken.append(port)
        if not taken:
            return offset
    raise AssertionError("no free ports")


def test_three_members_answer_lose_one_and_stop_together(tmp_path: Path) -> None:
    offset = free_offset()
    log = tmp_path / "log"
    with log.open("wb") as out:
        running = subprocess.Popen(
            [*COMMAND, "--data-dir", str(tmp_path / "run"), "--port-offset", str(offset)],
            stdout=out,
            stderr=out,
        )
    try:
        wait_until_sync(
            lambda: "Three members are ready" in log.read_text() or running.poll() is not None, 60
        )
        text = log.read_text()
        assert running.poll() is None, text
        assert str(tmp_path / "run") in text
        assert re.search(r"alias kvctl='/.*/kvctl --endpoints 127\.0\.0\.1:", text)
        with grpc.insecure_channel(f"127.0.0.1:{22379 + offset}") as channel:
            put = channel.unary_unary(
                "/etcdserverpb.KV/Put",
                request_serializer=pb.PutRequest.SerializeToString,
                response_deserializer=pb.PutResponse.FromString,
            )
            assert put(pb.PutRequest(key=b"k"), timeout=10).header.revision == 2
        pids = [int(pid) for pid in re.findall(r"node\d (\d+)", text.split("these pids:")[1])]
        assert len(pids) == 3
        os.kill(pids[0], signal.SIGKILL)
        wait_until_sync(lambda: "has stopped (signal SIGKILL)" in log.read_text(), 10)
        began = time.monotonic()
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=20) == 0
        assert time.monotonic() - began < 3
        for pid in pids:
            assert not Path(f"/proc/{pid}").exists()
        assert "Traceback" not in log.read_text()
    finally:
        if running.poll() is None:
            running.terminate()
            running.wait(timeout=10)


def test_taken_ports_are_named(tmp_path: Path) -> None:
    offset = free_offset()
    with socket.create_server(("127.0.0.1", 22379 + offset)):
        done = subprocess.run(
            [*COMMAND, "--data-dir", str(tmp_path / "run"), "--port-offset", str(offset)],
            capture_output=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert f"127.0.0.1:{22379 + offset}: in use by another process" in done.stderr.decode()
    assert not (tmp_path / "run").exists()
