"""``make run``: three real kvstore processes on loopback, their logs in one terminal.

Each member is a process of its own with its own data directory, as on three machines. Ctrl-C stops
all of them; what they stored is kept for the next run.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Final

import attrs
import click

CLIENT_PORTS: Final = (2379, 22379, 32379)
PEER_PORTS: Final = (2380, 22380, 32380)
HOST: Final = "127.0.0.1"
STOP_TIMEOUT_S: Final = 3.0
COLORS: Final = ("cyan", "magenta", "yellow")
LEVEL_COLORS: Final = {"warning": "yellow", "error": "red", "critical": "red"}
LINE_BYTES_MAX: Final = 1024 * 1024
PR_SET_PDEATHSIG: Final = 1
QUIET_FIELDS: Final = frozenset(
    {"level", "ts", "msg", "name", "data_dir", "pid", "flags", "cluster_id", "engine", "members"}
)


@attrs.define(slots=True, eq=False)
class MemberProcess:
    """One member: what it is started with, and its process once it runs."""

    name: str
    color: str
    client: str
    peer: str
    data: Path
    process: asyncio.subprocess.Process | None = None
    ready: asyncio.Event = attrs.field(factory=asyncio.Event)

    def say(self, text: str, color: str | None = None) -> None:
        """Print a line under this member's name."""
        click.echo(f"{click.style(self.name, fg=self.color)} | {click.style(text, fg=color)}")


class LocalCluster:
    """Three members on this machine.

    Args:
        directory: where their data directories are.
        offset: added to every port.
    """

    def __init__(self, directory: Path, offset: int) -> None:
        self.directory = directory
        self.members = [
            MemberProcess(
                name=f"node{number + 1}",
                color=COLORS[number],
                client=f"{HOST}:{CLIENT_PORTS[number] + offset}",
                peer=f"{HOST}:{PEER_PORTS[number] + offset}",
                data=directory / f"node{number + 1}.etcd",
            )
            for number in range(3)
        ]

    @property
    def endpoints(self) -> str:
        """Every client address, with commas."""
        return ",".join(member.client for member in self.members)

    def taken(self) -> list[str]:
        """Return the addresses that another process has."""
        found = []
        for member in self.members:
            for address in (member.client, member.peer):
                host, _, port = address.rpartition(":")
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    try:
                        probe.bind((host, int(port)))
                    except OSError:
                        found.append(address)
        return found

    def command(self, member: MemberProcess) -> list[str]:
        """The command line of one member."""
        peers = ",".join(f"{other.name}=http://{other.peer}" for other in self.members)
        return [
            sys.executable,
            "-m",
            "kvstore.cli.server",
            *("--name", member.name),
            *("--data-dir", str(member.data)),
            *("--listen-client-urls", f"http://{member.client}"),
            *("--advertise-client-urls", f"http://{member.client}"),
            *("--listen-peer-urls", f"http://{member.peer}"),
            *("--initial-advertise-peer-urls", f"http://{member.peer}"),
            *("--initial-cluster", peers),
            *("--initial-cluster-state", "new"),
        ]

    async def start(self) -> None:
        """Start every member's process."""
        for member in self.members:
            member.process = await asyncio.create_subprocess_exec(
                *self.command(member),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                limit=LINE_BYTES_MAX,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    async def follow(self, member: MemberProcess) -> None:
        """Print a member's log, briefly, until its process ends."""
        process = member.process
        assert process is not None and process.stdout is not None
        while line := await process.stdout.readline():
            show(member, line.decode("utf-8", "replace").rstrip())
        await process.wait()

    async def stop(self) -> None:
        """Stop every process that still runs; kill what has not ended in ``STOP_TIMEOUT_S``."""
        running = [m.process for m in self.members if m.process and m.process.returncode is None]
        for process in running:
            process.terminate()
        waiting = [asyncio.create_task(process.wait()) for process in running]
        if waiting:
            await asyncio.wait(waiting, timeout=STOP_TIMEOUT_S)
        for process in running:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _die_with_parent() -> None:
    """In the child: have the kernel stop it when this program is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def show(member: MemberProcess, line: str) -> None:
    """Print one line of a member's log in short form."""
    try:
        event: dict[str, Any] = json.loads(line)
        text = str(event["msg"])
    except (ValueError, KeyError, TypeError):
        member.say(line, "red")
        return
    details = " ".join(f"{key}={value}" for key, value in event.items() if key not in QUIET_FIELDS)
    member.say(f"{text} {details}".rstrip(), LEVEL_COLORS.get(event.get("level", "")))
    if text == "ready to serve client requests":
        member.ready.set()


def what_to_try(cluster: LocalCluster) -> str:
    """Return what a person can paste into another terminal."""
    kvctl = Path(sys.executable).parent / "kvctl"
    first, second, third = (member.client for member in cluster.members)
    pids = ", ".join(f"{m.name} {m.process.pid}" for m in cluster.members if m.process)
    return f"""
Three members are ready. In another terminal:

  alias kvctl='{kvctl} --endpoints {cluster.endpoints}'

  kvctl put greeting hello
  kvctl get greeting
  kvctl watch --prefix /config        # and in a third terminal:
  kvctl put /config/name raftyard
  kvctl endpoint status -w table

The same with etcd's own client, or with none:

  etcdctl --endpoints {first} get greeting
  curl -s http://{second}/health
  curl -s http://{third}/v3/kv/range -d '{{"key":"Z3JlZXRpbmc="}}'

Kill the leader and go on: kill -9 with one of these pids: {pids}
Ctrl-C stops all three. Data stay in {cluster.directory}
"""


async def run(cluster: LocalCluster) -> int:
    """Run the cluster until Ctrl-C; return the exit status."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    await cluster.start()
    followers = {asyncio.create_task(cluster.follow(member)): member for member in cluster.members}
    ready = asyncio.create_task(_all_ready(cluster))
    stop = asyncio.create_task(stopping.wait())
    alive: set[asyncio.Task[Any]] = set(followers)
    try:
        while not stop.done() and alive:
            done, _ = await asyncio.wait(
                {stop, *alive} | (set() if ready.done() else {ready}),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if ready in done:
                click.echo(what_to_try(cluster))
            for task in done & alive:
                alive.discard(task)
                if not stop.done():
                    _report_death(cluster, followers[task])
        status = 0 if stop.done() else 1
    finally:
        click.echo("stopping the members ...")
        await cluster.stop()
        await asyncio.gather(*followers, return_exceptions=True)
        for waiting in (ready, stop):
            waiting.cancel()
    click.echo(f"all stopped; data stay in {cluster.directory}")
    return status


async def _all_ready(cluster: LocalCluster) -> None:
    for member in cluster.members:
        await member.ready.wait()


def _report_death(cluster: LocalCluster, member: MemberProcess) -> None:
    process = member.process
    assert process is not None
    code = process.returncode
    how = f"signal {signal.Signals(-code).name}" if code and code < 0 else f"exit status {code}"
    member.say(f"has stopped ({how}). Two of three go on; to bring it back, paste:", "red")
    member.say(" ".join(cluster.command(member)))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("raftyard-run"),
    show_default=True,
    help="Where the members keep their data.",
)
@click.option("--fresh", is_flag=True, help="Forget what an earlier run stored there.")
@click.option(
    "--port-offset",
    type=click.IntRange(0, 30_000),
    default=0,
    show_default=True,
    help="Added to every port, where the usual ones are taken.",
)
def main(data_dir: Path, fresh: bool, port_offset: int) -> None:
    """Start a three-node kvstore cluster on this machine; Ctrl-C stops it.

    Clients connect to 127.0.0.1, ports 2379, 22379 and 32379; the members talk to each other on
    2380, 22380 and 32380.
    """
    cluster = LocalCluster(data_dir.absolute(), port_offset)
    taken = cluster.taken()
    if taken:
        raise click.ClickException(
            f"{', '.join(taken)}: in use by another process (an etcd, or another run of this?). "
            "Stop that one, or choose other ports, e.g.:\n"
            f"  {sys.executable} -m kvstore.cli.cluster --port-offset 10000"
        )
    if fresh:
        for member in cluster.members:
            shutil.rmtree(member.data, ignore_errors=True)
    try:
        cluster.directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(
            f"cannot make {cluster.directory}: {error.strerror}; choose another --data-dir"
        ) from None
    click.echo(f"data: {cluster.directory}" + (" (fresh)" if fresh else ""))
    sys.exit(asyncio.run(run(cluster)))


if __name__ == "__main__":
    main()
