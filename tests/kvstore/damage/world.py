"""Three members under load, of which one is to be damaged: its disk, its process, its log.

The victim's data are on a file system of their own, so that its disk can fail. Its process is
watched as a service manager does: when it ends, it is started again. Whatever it says from the
moment of the damage on is searched for the word of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import signal
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

import attrs

from chaos.lossyfs.disk import LossyDisk
from kvstore.client import AsyncClient, EtcdError
from tests.clusters import Cluster, Member, Program, healthy
from tests.kvstore.kill_rounds import read_back
from tests.kvstore.ledger import PREFIX, Ledger, load, more_acknowledged
from tests.waiting import wait_until

STILL: Final = "still"
"""What is written under this name before any damage is not written again: it stays where it is."""

STILL_PUTS: Final = 600
SNAPSHOT_COUNT: Final = 100
VALUE_BYTES: Final = 300
PATIENCE_S: Final = 120.0
RESTART_PAUSE_S: Final = 0.2
RESTARTS_MAX: Final = 8
POLL_S: Final = 0.05
READ_PAUSE_S: Final = 0.03

WORDS: Final = re.compile(
    r"damag|Input/output error|fatal error|cannot be (read|used|written)|checksum|missing|"
    r"must stop|not arrive",
    re.IGNORECASE,
)
"""What a message has that tells of damage. None of these is in what a healthy member says."""


@attrs.define
class World:
    """The cluster, its victim and what was acknowledged.

    ``ends`` has how the victim's process ended by itself since the last ``mark``; ``said`` is where
    its log ended then.
    """

    cluster: Cluster
    disk: LossyDisk
    ledger: Ledger
    rng: random.Random
    ends: list[int] = attrs.field(factory=list)
    marked_at: float = 0.0
    _said: int = 0
    _wanted: bool = True

    @property
    def victim(self) -> Member:
        """The member that is damaged."""
        return self.cluster.members[0]

    @property
    def mounted(self) -> Path:
        """Where the victim's files are, as it sees them."""
        return self.victim.data / "member"

    def files(self, where: str, pattern: str) -> list[Path]:
        """The victim's files of one kind, sorted."""
        return sorted((self.mounted / where).glob(pattern))

    def mark(self) -> None:
        """The damage is done now: what is said from here on may be of it."""
        self.ends.clear()
        self.marked_at = time.monotonic()
        self._said = self.victim.log.stat().st_size

    def word(self) -> str:
        """The victim's first words about damage since the last mark; empty: none yet."""
        with self.victim.log.open("rb") as log:
            log.seek(self._said)
            lines = log.read().decode(errors="replace").splitlines()
        return next((text for line in lines if (text := problem_in(line))), "")

    def kill(self) -> None:
        """SIGKILL for the victim, which is not started again before ``launch``."""
        self._wanted = False
        self.cluster.kill(self.victim)

    def launch(self, failpoints: str = "") -> None:
        """Start the victim, and from now on whenever it ends."""
        program = self.cluster.program
        if failpoints:
            armed = {"RAFTYARD_FAILPOINTS": failpoints}
            self.cluster.program = attrs.evolve(program, environment=armed)
        self.cluster.launch(self.victim)
        self.cluster.program = program
        self._wanted = True

    async def keep_alive(self) -> None:
        """Start the victim again when it ended by itself; for ever."""
        while True:
            await asyncio.sleep(POLL_S)
            process = self.victim.process
            if not self._wanted or process is None or process.poll() is None:
                continue
            self.ends.append(process.returncode)
            if len(self.ends) > RESTARTS_MAX:
                raise AssertionError(f"the victim ends again and again: {self.ends}")
            await asyncio.sleep(RESTART_PAUSE_S)
            if self._wanted:
                self.launch()

    async def ended(self) -> None:
        """Wait for the victim's process to end by itself; it is not started again."""
        self._wanted = False
        process = self.victim.process
        assert process is not None
        await asyncio.to_thread(process.wait, PATIENCE_S)

    async def well(self) -> None:
        """Wait until the victim serves linearizable reads."""
        await wait_until(
            lambda: asyncio.to_thread(healthy, self.victim.client), PATIENCE_S, "it is healthy"
        )

    async def lead(self, wanted: bool) -> None:
        """Let the victim lead, or another member."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(EtcdError, OSError):
                async with AsyncClient(self.cluster.endpoints) as client:
                    ids = [
                        (await client.status(endpoint)).header.member_id
                        for endpoint in self.cluster.endpoints
                    ]
                    leader = (await client.status()).leader
                    if leader in ids and (leader == ids[0]) == wanted:
                        return
                    if leader in ids:
                        endpoint = self.cluster.endpoints[ids.index(leader)]
                        target = ids[0] if wanted else ids[1]
                        await asyncio.to_thread(_transfer, endpoint, target)
            if time.monotonic() > deadline:
                raise AssertionError("leadership cannot be moved")
            await asyncio.sleep(POLL_S)

    async def hashes(self) -> set[int]:
        """Each member's HashKV at one revision; where leadership is on the move, again."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await self._hashes()
            except EtcdError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(POLL_S)

    async def _hashes(self) -> set[int]:
        async with AsyncClient(self.cluster.endpoints, timeout_s=PATIENCE_S) as client:
            revision = (await client.put("/end", "")).header.revision
        found = set()
        for endpoint in self.cluster.endpoints:
            async with AsyncClient(endpoint, timeout_s=PATIENCE_S) as client:
                await client.get("/end")  # linearizable: from here it has that revision
                found.add((await client.hash_kv(revision=revision)).hash)
        return found

    async def wrong(self) -> list[str]:
        """Hold what every member has against what was acknowledged."""
        answers = await read_back(self.cluster, self.ledger, "")
        found = [str(answer)[:300] for answer in answers if not answer.right]
        if len(await self.hashes()) > 1:
            found.append("the members' hashes differ")
        return found


def _transfer(endpoint: str, target: int) -> None:
    """Have the member at an endpoint, which leads, hand leadership over."""
    request = urllib.request.Request(
        f"http://{endpoint}/v3/maintenance/transfer-leadership",
        data=json.dumps({"targetID": str(target)}).encode(),
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S):
        pass


def problem_in(line: str) -> str:
    """The text of a log line that tells of damage; empty: it does not."""
    try:
        fields: Mapping[str, object] = json.loads(line)
    except ValueError:
        return line if WORDS.search(line) else ""
    if fields.get("level") not in ("warning", "error"):
        return ""
    text = str(fields.pop("msg", ""))
    details = [str(value) for key, value in fields.items() if key not in ("level", "ts")]
    said = ": ".join([text, *details])
    return said if WORDS.search(said) else ""


@contextlib.asynccontextmanager
async def world(directory: Path, seed: int, still_puts: int = STILL_PUTS) -> AsyncIterator[World]:
    """Start the cluster, fill it, and keep its victim alive while the block runs."""
    flags = ("--snapshot-count", str(SNAPSHOT_COUNT))
    cluster = Cluster(Program.kvstore("native"), directory, flags=flags)
    victim = cluster.members[0]
    logs = directory / "disk.log"
    disk = LossyDisk(victim.name, directory / "store", victim.data, logs, seed)
    disk.mount()
    try:
        with cluster:
            found = World(cluster, disk, Ledger(value_bytes=VALUE_BYTES), random.Random(seed))
            async with load(cluster, found.ledger, STILL):
                await more_acknowledged(found.ledger, still_puts)
            keeper = asyncio.create_task(found.keep_alive())
            try:
                yield found
            finally:
                keeper.cancel()
                await asyncio.gather(keeper, return_exceptions=True)
                disk.heal()
    finally:
        disk.unmount()


@attrs.define
class Reading:
    """Reads from the victim while it is damaged, each held against the ledger at once.

    A read at revision R must show whatever was acknowledged at or before R; a linearizable one,
    whatever was acknowledged before it began.
    """

    ledger: Ledger
    client: str
    rng: random.Random
    answers: int = 0
    failures: int = 0
    wrong: list[str] = attrs.field(factory=list)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read while the block runs."""
        tasks = [asyncio.create_task(self._read(way)) for way in (self._get, self._range)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, way: object) -> None:
        assert callable(way)
        while True:
            try:
                async with AsyncClient(self.client, timeout_s=5.0, dial_timeout_s=1.0) as client:
                    while True:
                        await way(client)
                        self.answers += 1
                        await asyncio.sleep(READ_PAUSE_S)
            except EtcdError:
                self.failures += 1
                await asyncio.sleep(POLL_S)

    async def _get(self, client: AsyncClient) -> None:
        key = self.rng.choice(list(self.ledger.acknowledged))
        serializable = self.rng.random() < 0.5
        answer = await client.range(key, serializable=serializable)
        revision = self.ledger.acknowledged[key]
        if answer.kvs:
            pair = answer.kvs[0]
            if (pair.mod_revision, pair.value) != (revision, self.ledger.value_of(key)):
                self.wrong.append(f"{key!r} is wrong: {pair}"[:300])
        elif not serializable or answer.header.revision >= revision:
            self.wrong.append(f"{key!r} of {revision} is not there at {answer.header.revision}")

    async def _range(self, client: AsyncClient) -> None:
        prefix = PREFIX + STILL.encode()
        known = self.ledger.under(prefix).acknowledged
        answer = await client.range(prefix, prefix + b"\xff", serializable=True)
        there = {pair.key: (pair.mod_revision, pair.value) for pair in answer.kvs}
        for key, revision in known.items():
            if revision > answer.header.revision:
                continue
            if there.get(key) != (revision, self.ledger.value_of(key)):
                self.wrong.append(
                    f"{key!r} of {revision} in a range at {answer.header.revision}: "
                    f"{there.get(key)}"[:300]
                )


def signals_in(ends: list[int]) -> str:
    """How processes ended, for a person."""
    return ", ".join(signal.Signals(-code).name if code < 0 else f"exit {code}" for code in ends)
