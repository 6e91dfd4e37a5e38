"""What a seed turns on, and how much of it.

Options are drawn as a swarm does it (Groce and others, "Swarm Testing", ISSTA 2012): each class of
fault is on or off for a whole seed, so that some seeds have one fault alone and others have many.
"""

from __future__ import annotations

import random
from typing import Any, Final

import attrs

from chaos.sim.disk import CrashMode

SECOND_US: Final = 1_000_000
BATCHES: Final = (1, 1, 1, 5, 20)
"""Commands in one call of a client; with 20 calls a second some 110 commands a second."""


@attrs.frozen(slots=True, kw_only=True)
class Options:
    """One run's settings. ``*_every_s``: mean seconds between two faults of a class, 0 for never.

    Args:
        nodes: members at the start; a single one has no network.
        tick_us: length of a tick in microseconds of virtual time, before drift.
        drift: each member's clock runs at its own rate, wrong by up to this fraction.
        durable_machine: whether the machine keeps its state on disk, as kvstore does.
        flush_every: commands between two flushes of a durable machine.
        snapshot_entries: the log is compacted beyond so many commands.
        delay_us: least and greatest delay of a message.
        loss, duplication: probabilities per message.
        late_duplicates: repeated messages arrive up to seconds later, elections apart.
        reordering: without it a link delivers in order.
        early_elections: members stand for election as soon as their leader's connection ends.
        gather_us: how long a leader holds proposals back while a round is under way.
        crash_modes: what a crash may leave of unsynced writes.
        crash_all: probability that a crash takes every member at once.
        restart_s: mean seconds from a crash to the next start.
        crash_inside: probability that a crash comes in the middle of a member's work.
        sector_bytes: what a disk writes whole or not at all.
        sync_us: least and greatest time of a sync.
        slow_sync_us: what a slow disk adds to each.
        large_commands: probability that a command is some kilobytes long.
        uncommitted_bytes_max: what a leader takes before it has committed it.
        audit_disks: whether disks are read independently at the end.
    """

    nodes: int = 3
    tick_us: int = 50_000
    election_timeout_ticks: int = 10
    heartbeat_ticks: int = 1
    drift: float = 0.0
    durable_machine: bool = True
    flush_every: int = 10
    snapshot_entries: int = 200
    delay_us: tuple[int, int] = (100, 2_000)
    loss: float = 0.0
    duplication: float = 0.0
    late_duplicates: bool = False
    reordering: bool = False
    early_elections: bool = False
    gather_us: int = 4_000
    crash_every_s: float = 0.0
    crash_modes: tuple[CrashMode, ...] = (CrashMode.LOSE_ALL,)
    crash_all: float = 0.0
    restart_s: float = 1.0
    crash_inside: float = 0.0
    pause_every_s: float = 0.0
    cut_every_s: float = 0.0
    one_way_cuts: bool = False
    stall_every_s: float = 0.0
    sector_bytes: int = 512
    sync_us: tuple[int, int] = (50, 200)
    slow_disk_every_s: float = 0.0
    slow_sync_us: int = 300_000
    sync_failure_every_s: float = 0.0
    disk_full_every_s: float = 0.0
    bit_flip_every_s: float = 0.0
    clock_jump_every_s: float = 0.0
    transfer_every_s: float = 0.0
    membership_every_s: float = 0.0
    calls_per_s: float = 20.0
    reads_per_s: float = 5.0
    large_commands: float = 0.0
    uncommitted_bytes_max: int = 64_000
    audit_disks: bool = True

    @classmethod
    def draw(cls, prng: random.Random) -> Options:
        """Draw every option from one stream."""

        def sometimes(chance: float, low: float, high: float) -> float:
            value = prng.uniform(low, high)
            return value if prng.random() < chance else 0.0

        tick_us, timeout_ticks = prng.choice(((20_000, 10), (50_000, 10), (100_000, 5)))
        # A network slower than its timeouts elects for ever; that proves little.
        flips = sometimes(0.3, 2, 10)
        changes = sometimes(0.4, 0.5, 5)
        slowest = prng.choice((1_000, timeout_ticks * tick_us // 40, timeout_ticks * tick_us // 8))
        return cls(
            nodes=prng.choice((1, 3, 3, 3, 3, 3, 3, 5)),
            tick_us=tick_us,
            election_timeout_ticks=timeout_ticks,
            heartbeat_ticks=prng.choice((1, 2, 3, 4)) if timeout_ticks > 5 else 1,
            drift=sometimes(0.3, 0.01, 0.2),
            durable_machine=prng.random() < 0.5,
            flush_every=prng.choice((1, 10, 200)),
            snapshot_entries=prng.choice((20, 200, 1_000, 100_000)),
            delay_us=(100, slowest),
            loss=sometimes(0.4, 0.0, 0.3),
            duplication=sometimes(0.4, 0.0, 0.2),
            late_duplicates=prng.random() < 0.5,
            reordering=prng.random() < 0.6,
            early_elections=prng.random() < 0.6,
            crash_every_s=sometimes(0.7, 0.5, 8),
            crash_modes=tuple(mode for mode in CrashMode if prng.random() < 0.6)
            or (CrashMode.LOSE_ALL,),
            crash_all=sometimes(0.4, 0.0, 0.3),
            crash_inside=sometimes(0.7, 0.3, 1.0),
            pause_every_s=sometimes(0.3, 1, 8),
            cut_every_s=sometimes(0.6, 1, 8),
            one_way_cuts=prng.random() < 0.4,
            stall_every_s=sometimes(0.3, 1, 6),
            sector_bytes=prng.choice((64, 64, 512, 4096)),
            sync_us=(50, prng.choice((200, 5_000))),
            slow_disk_every_s=sometimes(0.3, 2, 8),
            slow_sync_us=prng.choice((300_000, 2_000_000)),
            sync_failure_every_s=sometimes(0.25, 2, 10),
            disk_full_every_s=sometimes(0.2, 3, 10),
            bit_flip_every_s=flips,
            clock_jump_every_s=sometimes(0.3, 0.5, 5),
            transfer_every_s=sometimes(0.3, 2, 8),
            # A member that is being repaired and a shrinking group could leave no majority.
            membership_every_s=0.0 if flips else changes,
            calls_per_s=prng.choice((5.0, 20.0, 20.0)),
            reads_per_s=prng.choice((2.0, 5.0, 10.0)),
            large_commands=sometimes(0.3, 0.0, 0.02),
            audit_disks=prng.random() < 0.4,
            gather_us=prng.choice((0, 4_000, 20_000)),
        )

    @classmethod
    def draw_kill_all(cls, prng: random.Random) -> Options:
        """Draw a run in which every member loses its power at once, again and again, under load."""
        return cls(
            tick_us=20_000,
            durable_machine=prng.random() < 0.5,
            flush_every=prng.choice((1, 10, 200)),
            snapshot_entries=prng.choice((20, 200, 1_000)),
            reordering=prng.random() < 0.5,
            crash_every_s=1.5,
            crash_modes=(*[CrashMode.KEEP_PREFIX] * 2, CrashMode.LOSE_ALL, CrashMode.KEEP_SOME),
            crash_all=1.0,
            restart_s=0.2,
            crash_inside=0.7,
            sector_bytes=64,
            sync_us=(50, prng.choice((200, 5_000))),
            large_commands=prng.choice((0.0, 0.02)),
        )

    @property
    def election_timeout_us(self) -> int:
        """The least time after which a follower may stand for election."""
        return self.election_timeout_ticks * self.tick_us

    def differences(self) -> dict[str, Any]:
        """What differs from a quiet run, for a report."""
        quiet = Options()
        found = {}
        for field in attrs.fields(Options):
            value = getattr(self, field.name)
            if value != getattr(quiet, field.name):
                if field.name == "crash_modes":
                    value = [mode.value for mode in value]
                found[field.name] = round(value, 4) if isinstance(value, float) else value
        return found
