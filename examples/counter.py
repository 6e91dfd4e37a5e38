"""A replicated counter on three real processes: `python examples/counter.py`."""

import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from consensus import MethodMachine, command, query
from consensus.client import SyncClient


class Counter(MethodMachine):
    def __init__(self) -> None:
        self.value = 0

    @command
    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    @query
    def read(self) -> int:
        return self.value


def start(name: str, peers: dict[str, str], client: str, data: str) -> subprocess.Popen[bytes]:
    serve = [sys.executable, "-m", "consensus.cli", "serve", "counter:Counter", "--name", name]
    cluster = ",".join(f"{member}=http://{address}" for member, address in peers.items())
    flags = [f"--initial-cluster={cluster}", f"--listen-peer-urls=http://{peers[name]}"]
    flags += [f"--listen-client-urls=http://{client}", f"--data-dir={data}/{name}"]
    log = subprocess.DEVNULL
    return subprocess.Popen(serve + flags, cwd=Path(__file__).parent, stdout=log, stderr=log)


def main() -> None:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(6)]
    free = [f"127.0.0.1:{sock.getsockname()[1]}" for sock in sockets]
    for sock in sockets:
        sock.close()
    peers = dict(zip(["ann", "bob", "cas"], free[:3], strict=True))
    clients = dict(zip(peers, free[3:], strict=True))
    with tempfile.TemporaryDirectory() as data, SyncClient([*clients.values()]) as client:
        members = {name: start(name, peers, clients[name], data) for name in peers}
        try:
            for count in range(1, 11):
                applied = client.propose(Counter.encode("add", amount=1), timeout_s=20)
                print(f"add(1) -> {applied.result}   (index {applied.index}, term {applied.term})")
                if count == 5:
                    found = [said for said in client.status().values() if said.get("leader")]
                    leader = max(found, key=lambda said: said["term"])["leader"]
                    print(f"killing the leader, {leader} ...")
                    members[leader].kill()
            print(f"read() -> {client.query(Counter.encode('read'))}: nothing was lost")
        finally:
            for process in members.values():
                process.kill()
                process.wait()


if __name__ == "__main__":
    main()
