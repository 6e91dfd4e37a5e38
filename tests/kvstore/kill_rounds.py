"""Rounds of SIGKILL of all three members at once, under load, while the log is being compacted.

After each round every member must start again by itself, and every put that was acknowledged must
be on every member. By hand, for as many rounds as there is time for:

    PYTHONPATH=. nice python -m tests.kvstore.kill_rounds --rounds 200 --engine native

With ``--lossy-disks`` the data are on file systems of their own (``chaos.lossyfs``), each of which
then forgets what was not synced: all of it, all but the first writes with the next one torn, or any
sectors, drawn anew for each round.

It prints one line now and then and ends with a summary; the exit status is 1 where a put was lost
or a member refused to start.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs

from chaos.lossyfs.disk import LossyDisk, why_not
from chaos.lossyfs.volatile import Forget
from kvstore.client import AsyncClient, EtcdError, KeyValue, prefix_end
from tests.clusters import Cluster, Program
from tests.kvstore.ledger import PREFIX, Found, Ledger, compare, load, more_acknowledged

SNAPSHOT_COUNT: Final = 50
"""The log is compacted each time that so many more entries were applied, and keeps as many."""
VALUE_BYTES: Final = 2_000
PUTS_MAX: Final = 200
"""Puts acknowledged before a kill, at most; how many is drawn for each round."""
PAGE_KEYS: Final = 500
READ_TIMEOUT_S: Final = 60.0
WHOLE_EVERY: Final = 25
"""Rounds between two comparisons of everything; after each round its own puts are compared."""


@attrs.define
class Tally:
    """What the rounds came to."""

    rounds: int = 0
    acknowledged: int = 0
    unknown: int = 0
    wrong: list[str] = attrs.field(factory=list)
    starts_s: list[float] = attrs.field(factory=list)
    forgotten: int = 0
    """Changes that the disks had not been asked to sync, and lost."""


async def rounds_of_kills(
    directory: Path,
    rounds: int,
    *,
    engine: str = "native",
    seed: int = 0,
    lossy_disks: bool = False,
    say: Callable[[str], None] = print,
) -> Tally:
    """Run the rounds; return what was counted and what was wrong.

    Args:
        directory: for data and logs.
        rounds: how many kills.
        engine: of the kvstore members.
        seed: of the moments of the kills.
        lossy_disks: whether all lose their power, so that unsynced writes are lost or torn.
        say: is told now and then how it goes.

    Raises:
        RuntimeError: a member did not start; the text has the tail of its log.
    """
    drawn = random.Random(seed)
    tally = Tally()
    ledger = Ledger(value_bytes=VALUE_BYTES)
    cluster = Cluster(
        Program.kvstore(engine), directory, flags=("--snapshot-count", str(SNAPSHOT_COUNT))
    )
    with contextlib.ExitStack() as stack:
        disks = _mount_disks(cluster, directory, seed, stack) if lossy_disks else []
        stack.enter_context(cluster)
        for number in range(1, rounds + 1):
            name = f"round{number}"
            async with load(cluster, ledger, name):
                await more_acknowledged(ledger, drawn.randrange(1, PUTS_MAX))
                kill_all(cluster)
            leaves = drawn.choice(list(Forget))
            for disk in disks:
                tally.forgotten += await asyncio.to_thread(disk.forget, leaves)
            began = time.monotonic()
            await asyncio.to_thread(start_all, cluster)
            tally.starts_s.append(time.monotonic() - began)
            tally.rounds = number
            whole = number % WHOLE_EVERY == 0 or number == rounds
            for found in await read_back(cluster, ledger, "" if whole else f"{name}/"):
                if not found.right:
                    tally.wrong.append(f"after round {number}: {found}")
            if tally.wrong or whole:
                say(
                    f"round {number}: {len(ledger.acknowledged)} puts acknowledged, "
                    f"{len(ledger.unknown)} unknown, {len(tally.wrong)} answers wrong"
                )
            if tally.wrong:
                break
    tally.acknowledged, tally.unknown = len(ledger.acknowledged), len(ledger.unknown)
    return tally


def _mount_disks(
    cluster: Cluster, directory: Path, seed: int, stack: contextlib.ExitStack
) -> Sequence[LossyDisk]:
    """Put a lossy disk under each member's data directory; they go when ``stack`` closes."""
    disks = []
    for number, member in enumerate(cluster.members):
        disk = LossyDisk(
            member.name,
            directory / "disks" / member.name,
            member.data,
            directory / f"disk-{member.name}.log",
            seed + number,
        )
        disk.mount()
        stack.callback(disk.unmount)
        disks.append(disk)
    return disks


def kill_all(cluster: Cluster) -> None:
    """SIGKILL for every member at one moment."""
    for member in cluster.members:
        assert member.process is not None
        member.process.send_signal(signal.SIGKILL)
    for member in cluster.members:
        cluster.kill(member)


def start_all(cluster: Cluster) -> None:
    """Start every member, and wait until each is healthy."""
    for member in cluster.members:
        cluster.launch(member)
    cluster.wait_ready()


async def read_back(cluster: Cluster, ledger: Ledger, name: str) -> list[Found]:
    """Ask every member for the puts under a name, and hold them against the ledger."""
    prefix = PREFIX + name.encode()
    answers = []
    for member in cluster.members:
        pairs = {kv.key: kv for kv in await patiently(member.client, prefix)}
        answers.append(compare(member.name, pairs, ledger.under(prefix)))
    return answers


async def patiently(endpoint: str, prefix: bytes) -> list[KeyValue]:
    """Read everything under a prefix from one member; a read that fails is tried again."""
    deadline = time.monotonic() + READ_TIMEOUT_S
    while True:
        try:
            async with AsyncClient(
                endpoint, timeout_s=READ_TIMEOUT_S, dial_timeout_s=READ_TIMEOUT_S
            ) as client:
                return await read_all(client, prefix)
        except EtcdError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


async def read_all(client: AsyncClient, prefix: bytes) -> list[KeyValue]:
    """Read everything under a prefix, in pages that fit a message."""
    found: list[KeyValue] = []
    start, end = prefix, prefix_end(prefix)
    while True:
        page = (await client.range(start, end, limit=PAGE_KEYS)).kvs
        found.extend(page)
        if len(page) < PAGE_KEYS:
            return found
        start = page[-1].key + b"\0"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--engine", default="native")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lossy-disks", action="store_true", help="forget what was not synced")
    options = parser.parse_args()
    if options.lossy_disks and why_not():
        parser.error(f"--lossy-disks: {why_not()}")
    with tempfile.TemporaryDirectory(prefix="kill-rounds-") as directory:
        began = time.monotonic()
        tally = asyncio.run(
            rounds_of_kills(
                Path(directory),
                options.rounds,
                engine=options.engine,
                seed=options.seed,
                lossy_disks=options.lossy_disks,
            )
        )
        starts = sorted(tally.starts_s)
        print(
            f"{tally.rounds} rounds in {time.monotonic() - began:.0f} s: "
            f"{tally.acknowledged} puts acknowledged, {tally.unknown} unknown, "
            f"{len(tally.wrong)} answers wrong; "
            f"{tally.forgotten} unsynced changes lost; all three served again after "
            f"{starts[len(starts) // 2]:.1f} s (median), {starts[-1]:.1f} s (longest)"
        )
        for wrong in tally.wrong:
            print(wrong[:2_000])
        sys.exit(1 if tally.wrong else 0)


if __name__ == "__main__":
    main()
