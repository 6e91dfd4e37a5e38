"""Watches: bugs of etcd, on a real store with its watch hub and streams."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.mutation import Mutant
from tests.replayed.basics import a_watch_works
from tests.replayed.bug import Table, issue
from tests.replayed.machines import Stage
from tests.replayed.streams import Client, hub_of

TABLE = Table(a_watch_works)

HUB = "kvstore.watch.hub:"
STREAM = "kvstore.watch.stream:"


@TABLE.replays(
    *issue("etcd-io/etcd", 15271),
    promise="a watch gets each event once, in order",
    mutant=Mutant(
        "a snapshot sends watchers back to where they began",
        HUB + "WatchHub.restored",
        "max(watcher.next_revision, seen + 1)",
        "watcher.next_revision",
    ),
)
def a_watch_travels_back_after_a_snapshot(stage: Stage) -> None:
    """A member was cut off, came back and caught up by a snapshot. Its watchers began again where
    they had begun, and got events that they had long had.
    """

    async def story() -> None:
        leader, member = stage.store("leader"), stage.store("member")
        client = Client(hub_of(member))
        for store in (leader, member):
            store.put(b"a")
        await client.watch(b"a", start_revision=2)
        await client.take()
        for store in (leader, member):
            store.put(b"a")
        await client.take()
        for _ in range(3):
            leader.put(b"a")
        member.restore(leader.snapshot())
        await client.take()
        assert client.revisions == [2, 3, 4, 5, 6], f"a watch from 2 on got {client.revisions}"

    asyncio.run(story())


@TABLE.replays(
    *issue("etcd-io/etcd", 15220),
    promise="after a progress notification nothing older comes",
    mutant=Mutant(
        "reports progress while watchers are behind",
        STREAM + "WatchStream.try_progress",
        "if self._behind or not all(",
        "if False and not all(",
    ),
)
def progress_is_reported_before_events_that_belong_to_it(stage: Stage) -> None:
    """A progress notification named a revision although older events were still to be sent. A
    client that resumed from it after a break lost them.
    """

    async def story() -> None:
        member = stage.store()
        client = Client(hub_of(member))
        for _ in range(30):
            member.put(b"a")
        await client.watch(b"a", start_revision=2)
        await client.ask_progress()
        await client.take()
        reported = 0
        for answer in client.taken:
            for event in answer.events:
                revision = event.kv.mod_revision
                assert revision > reported, f"progress {reported}, and then the event of {revision}"
            if not answer.events and not answer.created:
                reported = answer.header.revision
        assert reported == member.revision, "no progress was reported"

    asyncio.run(story())


@TABLE.replays(
    *issue("etcd-io/etcd", 17529),
    promise="a watch misses nothing",
    mutant=Mutant(
        "the event that finds the buffer full is lost",
        HUB + "WatchHub._deliver",
        "self.fall_behind(watcher, revision)",
        "self.fall_behind(watcher, revision + 1)",
    ),
)
def a_slow_watcher_misses_an_event(stage: Stage) -> None:
    """Many watchers shared one stream and its client was slow. Watchers that fell behind were
    starved, and went on later without some of the events.
    """

    async def story() -> None:
        member = stage.store()
        client = Client(hub_of(member), responses_max=8)
        for _ in range(3):
            await client.watch(b"a")
        for _ in range(20):
            member.put(b"a")
        await client.take()
        wanted = Counter(3 * [*range(2, 22)])
        missing = sorted((wanted - Counter(client.revisions)).elements())
        assert not missing, f"of three watches on one slow stream some never get {missing}"
        assert Counter(client.revisions) == wanted

    asyncio.run(story())


@TABLE.replays(
    *issue("etcd-io/etcd", 17247),
    promise="a watch gets each event once, in order",
    mutant=Mutant(
        "a watcher that falls behind goes on from an event that it has had",
        HUB + "WatchHub._deliver",
        "self.fall_behind(watcher, revision)",
        "self.fall_behind(watcher, revision - 1)",
    ),
)
def an_event_comes_twice_where_history_takes_over(stage: Stage) -> None:
    """A watcher was sent an event as it happened, and again when its history was read: the two
    sources overlapped, so that the changes of one transaction seemed to have been made twice.
    """

    async def story() -> None:
        member = stage.store()
        client = Client(hub_of(member), responses_max=8)
        await client.watch(b"a")
        for _ in range(20):
            member.put(b"a")
        await client.take()
        twice = sorted({r for r in client.revisions if client.revisions.count(r) > 1})
        assert not twice, f"the events of {twice} came twice"
        assert client.revisions == list(range(2, 22))

    asyncio.run(story())


@TABLE.replays(
    *issue("etcd-io/etcd", 20221),
    promise="a watch gets nothing from before the revision that it asked for",
    mutant=Mutant(
        "a watch of the future begins at once",
        HUB + "_concerned_by_one",
        "watcher.next_revision <= revision and watcher.wants(event)",
        "watcher.wants(event)",
    ),
)
def a_watch_of_the_future_gets_the_past(stage: Stage) -> None:
    """A client asked a member that lagged for everything from a revision on which that member had
    not reached yet. It was sent what came before that revision as well.
    """

    async def story() -> None:
        member = stage.store()
        client = Client(hub_of(member))
        member.put(b"a")
        await client.watch(b"a", start_revision=10)
        for _ in range(12):
            member.put(b"a")
        await client.take()
        early = [revision for revision in client.revisions if revision < 10]
        assert not early, f"a watch from 10 on got the events of {early}"
        assert client.revisions == list(range(10, 15))

    asyncio.run(story())
