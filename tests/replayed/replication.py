"""Replication and elections: bugs of other Raft implementations, on groups of real cores."""

from __future__ import annotations

from consensus.raft.configuration import Configuration
from consensus.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    LogEntry,
    RequestVote,
)
from consensus.raft.ready import HardState
from tests.consensus.raft.group import Group, between, entries_of, of_kind
from tests.consensus.raft.mutants import MUTANTS
from tests.mutation import Mutant
from tests.replayed.basics import a_group_works
from tests.replayed.bug import Source, Table, issue, must
from tests.replayed.machines import Stage

RAFT = "consensus.raft."

TABLE = Table(a_group_works)


def known(name: str) -> Mutant:
    """Return the mutant of this name from the engine's own table."""
    return next(mutant for mutant in MUTANTS if mutant.name == name)


def agree(group: Group) -> None:
    """Assert that no two members applied different entries in one place."""
    at: dict[int, LogEntry] = {}
    for name, member in group.members.items():
        for entry in member.applied:
            other = at.setdefault(entry.index, entry)
            assert other == entry, (
                f"at {entry.index} {name} applied an entry of term {entry.term}, and another "
                f"member one of term {other.term}"
            )


def settled(group: Group, leader: str) -> None:
    """Let a leader send and hear for a while, which is enough for all to be committed and told."""
    for _ in range(5):
        group.tick(leader)
        for _ in range(5):
            group.deliver()


@TABLE.replays(
    *issue("logcabin/logcabin", 44),
    *issue("bakwc/PySyncObj", 169),
    promise="what was applied once is never replaced",
    mutant=known("commits an older term by counting"),
)
def an_older_terms_entry_is_replaced_after_it_was_committed(stage: Stage) -> None:
    """A leader took an entry of an earlier term for committed as soon as a majority had it. The
    next leader may lack that entry and replaces it.

    The paper's figure 8. "a" leads term 4 and brings its entry of term 2 to "b" and "c"; then "e",
    which has an entry of term 3 there, is elected by "c", "d" and itself.
    """
    logs = {"a": (1, 2), "b": (1, 2), "c": (1,), "d": (1,), "e": (1, 3)}
    group = Group((), settings={"message_bytes_max": 1, "pre_vote": False})
    for name, terms in logs.items():
        group.add(name, Configuration.of(logs), entries_of(*terms), HardState(3))
    group.cut = {"e"}
    group.win("a")
    group.cut = {"d", "e"}
    for _ in range(2):
        group.deliver(between("a"))
        group.deliver(between(None, "a"))
    group.wire.clear()
    group.cut = {"a", "b"}
    group["e"].become_follower(4, None)
    group.elect("e")
    group.cut = {"a"}
    group.beat("e")
    group.beat("e")
    assert group.members["e"].commands == ["1@1", "2@3"]
    agree(group)


@TABLE.replays(
    *issue("willemt/raft", 37),
    *issue("lerna-stack/akka-entity-replication", 152),
    Source("PySyncObj 0.3.17, `append_entries`", "https://github.com/bakwc/PySyncObj"),
    promise="an acknowledged entry stays on the disks that acknowledged it",
    mutant=known("truncates on a matching append"),
)
def a_repeated_append_takes_back_what_was_acknowledged(stage: Stage) -> None:
    """A follower cut its log at the end of every append, matching or not, so that an old one that
    came again took entries away which it had acknowledged since.

    "a" commits with "b", whose log a repeated message shortens; "b" crashes; "a" is lost.
    """
    group = Group("abc")
    group.elect("a")
    group.cut = {"c"}
    group.propose("a", "first")
    (old,) = [m for m in group.wire if isinstance(m, AppendEntries) and m.receiver == "b"]
    group.propose("a", "second")
    group.deliver(between("a", "b"))
    group.deliver(between("b", "a"))
    assert group.members["a"].commands == ["first", "second"]
    group.wire.clear()
    group.step(old)
    group.restart("b")
    group.cut = {"a"}
    group.elect("b")
    group.beat("b")
    found = group.members["b"].commands
    assert found == ["first", "second"], f"first and second were acknowledged; left is {found}"


@TABLE.replays(
    *issue("atomix/copycat", 265),
    *issue("scylladb/scylladb", 9965),
    promise="only what the leader vouches for is committed",
    mutant=known("commits a tail that an empty append did not vouch for"),
)
def an_empty_append_commits_a_tail_that_nobody_vouched_for(stage: Stage) -> None:
    """A follower bounded the leader's commit index by the end of its own log, and so committed
    entries of a deposed leader which the message in hand said nothing about.

    "c" has two entries of a lost leader; the new one knows of a longer log, and its empty append
    matches before them.
    """
    group = Group((), settings={"pre_vote": False})
    for name, terms in {"a": (1, 2, 2), "b": (1, 2, 2), "c": (1, 1, 1)}.items():
        group.add(name, Configuration.of("abc"), entries_of(*terms), HardState(2))
    group["c"].become_follower(3, "a")
    group.step(
        AppendEntries(
            sender="a",
            receiver="c",
            term=3,
            prev_log_index=1,
            prev_log_term=1,
            entries=(),
            leader_commit=3,
        )
    )
    group.cut = {"c"}
    group.elect("a")
    group.beat("a")
    assert group.members["a"].commands == ["1@1", "2@2", "3@2"]
    agree(group)


@TABLE.replays(
    *issue("bakwc/PySyncObj", 166),
    promise="the commit index never goes back",
    mutant=Mutant(
        "takes the leader's commit index even where it is lower",
        RAFT + "replication:handle_append_entries",
        "core.commit_index = max(core.commit_index, min(message.leader_commit, last_new_index))",
        "core.commit_index = min(message.leader_commit, last_new_index)",
    ),
)
def a_new_leader_that_knows_less_takes_the_commit_index_back(stage: Stage) -> None:
    """A follower took over the commit index of every append. A new leader has all that is
    committed but may not know yet that it is, and took the followers' knowledge back.
    """
    group = Group("abc")
    group.elect("a")
    group.propose("a", "x")
    group.deliver(between("a"))
    group.deliver(between("b", "a"))
    group.deliver(between("a", "b"))  # only "b" hears that it is committed
    group.wire.clear()
    before = group["b"].commit_index
    assert before > group["c"].commit_index
    group.cut = {"a"}
    group.win("c")
    group.deliver(between("c", "b"))
    after = group["b"].commit_index
    assert after >= before, f"the commit index of a follower went from {before} back to {after}"


@TABLE.replays(
    *issue("bakwc/PySyncObj", 167),
    *issue("zhebrak/raftos", 25),
    *issue("ongardie/raft.tla", 18),
    promise="what a majority has acknowledged is committed",
    mutant=known("a late acknowledgement takes back what is known"),
)
def a_late_acknowledgement_takes_back_what_is_known(stage: Stage) -> None:
    """A leader believed the acknowledgement that came last and not the one that said most, and
    forgot, when two changed places on the way, that an entry was on a majority.
    """
    group = Group("abc")
    group.elect("a")
    group.cut = {"c"}
    group.held = {"a"}
    group.propose("a", "x")
    group.deliver(between("a", "b"))
    last = group.propose("a", "y")
    group.deliver(between("a", "b"))
    early, late = (m for m in group.wire if isinstance(m, AppendEntriesResponse))
    group.wire.clear()
    group.step(late)
    group.step(early)
    group.persist("a")
    known_to_be_committed = group["a"].commit_index
    assert known_to_be_committed == last, (
        f"two of three acknowledged up to {last}, and {known_to_be_committed} is committed"
    )


@TABLE.replays(
    *issue("bakwc/PySyncObj", 84, 201, 202),
    promise="at most one leader in a term",
    mutant=known("a vote alone is not synced"),
)
def a_member_forgets_its_vote_and_votes_again(stage: Stage) -> None:
    """Term and vote were kept in memory only. A member that restarted within an election voted a
    second time in it.

    "b" votes for "a", crashes, and is asked by "c" in the same term.
    """
    group = Group("abc", settings={"pre_vote": False})
    group.cut = {"c"}
    group.win("a")
    group.wire.clear()
    term = group["a"].term
    group.restart("b")
    group["b"].now_ticks = 100
    group.cut = {"a"}
    group["c"].campaign()
    group.run("c")
    assert group["c"].term == term
    group.deliver(of_kind(RequestVote))
    group.deliver(between("b", "c"))
    both = group["a"].is_leader and group["c"].is_leader
    assert not both, f"two leaders of term {term}: b voted for a, crashed, and voted for c"


@TABLE.replays(
    *issue("bakwc/PySyncObj", 197),
    promise="a member comes back after every crash",
    mutant=Mutant(
        "believes a commit index that its log does not reach",
        RAFT + "core:Core.__init__",
        "min(hard_state.commit_index, log.last_index)",
        "hard_state.commit_index",
    ),
)
def a_commit_index_beyond_the_log_keeps_a_member_from_coming_back(stage: Stage) -> None:
    """The file with the commit index reached the disk before a crash and the end of the log did
    not. The member waited at its start for entries that it did not have, for ever.
    """
    group = Group(())
    for name in "ab":
        group.add(name, Configuration.of("abc"), entries_of(1, 1, 1), HardState(1, None, 3))
    group.add("c", Configuration.of("abc"), entries_of(1), HardState(1, None, 3))
    group.win("a")
    settled(group, "a")
    found = group.members["c"].commands
    assert found == ["1@1", "2@1", "3@1"], f"the member that came back has {found}, for ever"


@TABLE.replays(
    *issue("bakwc/PySyncObj", 139),
    promise="after a restart the state is what was applied before",
    mutant=Mutant(
        "takes what is committed for applied when it starts",
        RAFT + "core:Core.__init__",
        "self._applying_index = self.applied_index",
        "self._applying_index = self.commit_index",
    ),
)
def a_restarted_member_does_not_apply_its_log(stage: Stage) -> None:
    """A member that came back had its log and an empty state: what it knew to be committed was
    not applied again, only what came later.
    """
    group = Group("abc")
    group.elect("a")
    group.propose("a", "x")
    group.deliver(between("a", "b"))
    group.deliver(between("b", "a"))
    group.wire.clear()
    group.propose("a", "y")  # with it goes the news that x is committed
    group.deliver(between("a", "b"))
    group.wire.clear()
    group.restart("b")
    settled(group, "a")
    found = group.members["b"].commands
    assert found == ["x", "y"], f"the member that came back has applied {found}, others x and y"


@TABLE.replays(
    *issue("eBay/NuRaft", 185),
    *issue("microsoft/CCF", 5674),
    promise="a leader has everything that is committed",
    mutant=known("votes for a shorter log"),
)
def a_vote_for_a_member_that_lags_rolls_back_what_was_committed(stage: Stage) -> None:
    """Members voted for a candidate whose log was shorter than their own. It became the leader and
    had the others give up entries that were committed.
    """
    group = Group("abc")
    group.elect("a")
    group.cut = {"c"}
    group.propose("a", "x")
    group.stabilize("a", "b")
    group.beat("a")
    assert group.members["b"].commands == ["x"]
    group.cut = {"a"}
    group.wire.clear()
    for name in "bc":
        group[name].now_ticks = group[name].election_elapsed = 100
    group["c"].campaign()
    group.run("c")
    for _ in range(6):
        group.deliver(lambda m: "a" not in (m.sender, m.receiver))
    assert not group["c"].is_leader, "c leads, and has not x, which is committed"


@TABLE.replays(
    Source(
        "Cloudflare, 2 November 2020",
        "https://blog.cloudflare.com/a-byzantine-failure-in-the-real-world/",
    ),
    promise="a leader that a majority can reach stays",
    mutant=known("helps to depose a leader that it hears"),
)
def two_members_that_lost_each_other_depose_leaders_for_ever(stage: Stage) -> None:
    """A switch failed in part: two members no longer heard each other and a third heard both.
    Whichever of the two did not lead raised the term again and again, and elections went on for
    hours.
    """
    group = Group("abc", settings={"pre_vote": False})
    group.elect("a")
    term = group["a"].term
    for _ in range(100):
        for name in "abc":
            group.tick(name)
        for _ in range(4):
            group.drop(lambda m: {m.sender, m.receiver} == {"a", "b"})
            group.deliver()
    assert group["a"].is_leader or group["c"].is_leader, "nobody leads"
    after = group["c"].term
    assert after == term, f"a majority hears the leader all the time, and the term went to {after}"


@TABLE.replays(
    Source(
        "TigerBeetle, liveness in simulation",
        "https://tigerbeetle.com/blog/2023-07-06-simulation-testing-for-liveness",
    ),
    promise="a majority that can talk makes progress",
    mutant=known("leads on without a majority"),
)
def a_leader_that_hears_nobody_keeps_the_others_quiet(stage: Stage) -> None:
    """A leader's messages reached the others and theirs did not reach it. Its heartbeats kept them
    from electing another, and nothing was committed any more.
    """
    group = Group("abc")
    group.elect("a")
    for _ in range(200):
        for name in "abc":
            group.tick(name)
        for _ in range(4):
            group.drop(between(None, "a"))
            group.deliver()
    leaders = [name for name in "bc" if group[name].is_leader]
    assert leaders, "for 200 ticks nobody leads that could commit anything"
    group.propose(leaders[0], "x")
    group.deliver(lambda m: "a" not in (m.sender, m.receiver))
    group.deliver(lambda m: "a" not in (m.sender, m.receiver))
    assert group.members[leaders[0]].commands == ["x"]


@TABLE.replays(
    *issue("cloudamqp/lavinmq", 2151),
    promise="a leader whose disk stalls makes way",
    mutant=Mutant(
        "leads on while its disk stalls",
        RAFT + "replication:tick_leader",
        "core.persist_pending and",
        "False and",
    ),
)
def a_leader_whose_disk_stalls_leads_on(stage: Stage) -> None:
    """A leader's disk did not finish a write for minutes. It went on sending heartbeats, so that
    nobody took over, and its clients waited.
    """
    group = Group("abc")
    group.elect("a")
    group.held = {"a"}
    group.propose("a", "x")
    for _ in range(100):
        for name in "abc":
            group.tick(name)
            group.stabilize()
    leaders = [name for name in "abc" if group[name].is_leader]
    assert leaders, "nobody leads"
    assert leaders != ["a"], "the member whose disk stalls led for 100 ticks"


@TABLE.replays(
    *issue("etcd-io/etcd", 14890),
    promise="a command that was proposed once is applied at most once",
    mutant=known("a repeated forward is appended twice"),
)
def a_repeated_request_is_applied_twice(stage: Stage) -> None:
    """A request whose answer was lost was sent again below the client, and took effect twice:
    updates between the two were undone.
    """
    group = Group("abc")
    group.elect("a")
    group["b"].forward(1, [b"x = 1"])
    group.run("b")
    (request,) = group.wire
    group.stabilize()
    group.propose("a", "x = 2")
    group.stabilize()
    group.step(request)
    group.stabilize()
    assert group.members["a"].commands == ["x = 1", "x = 2"], "x = 1 was applied a second time"


@TABLE.replays(
    *issue("etcd-io/etcd", 21178),
    promise="a member never commits what it does not have",
    mutant=Mutant(
        "believes the commit index of a heartbeat",
        RAFT + "replication:handle_heartbeat",
        "min(message.leader_commit, core.log.last_index)",
        "message.leader_commit",
    ),
)
def a_heartbeat_tells_a_member_to_commit_what_it_does_not_have(stage: Stage) -> None:
    """A member came back with an empty disk under an id that the leader remembered. The first
    heartbeat told it to commit far beyond its log, and it panicked, at every start.
    """
    group = Group("abc")
    group.elect("a")
    group.propose("a", "x", "y", "z")
    group.stabilize()
    group.cut = {"c"}
    group.beat("a")
    group.cut = set()
    disk = group.members["c"].disk
    disk.entries, disk.hard_state = [], HardState()
    group.restart("c")
    with must("a heartbeat is taken in by a member whose log is empty"):
        group.tick("a")
        group.deliver(between("a", "c"))
    commit, last = group["c"].commit_index, group["c"].log.last_index
    assert commit <= last, (
        f"it takes everything up to {commit} for committed; its log ends at {last}"
    )
    group.cut = {"a"}
    group.elect("b")
    settled(group, "b")
    assert group.members["c"].commands == ["x", "y", "z"]


@TABLE.replays(
    *issue("etcd-io/etcd", 14370),
    promise="what was acknowledged is on the disk",
    mutant=Mutant(
        "counts what is being written as written",
        RAFT + "core:Core.take_ready",
        "self._handed_index = last_index",
        "self._handed_index = self.log.persisted_index = last_index\n"
        "    if self.is_leader:\n"
        "        replication.advance_commit(self)",
    ),
)
def the_only_member_answers_before_its_disk_has_it(stage: Stage) -> None:
    """A cluster of one is its own majority: it applied and acknowledged a write while the log was
    still being written, and a crash in between lost it.
    """
    group = Group("a")
    group.elect("a")
    group.held = {"a"}
    group.propose("a", "x")
    acknowledged = list(group.members["a"].commands)
    group.restart("a")
    group.held = set()
    group.elect("a")
    found = group.members["a"].commands
    assert found[: len(acknowledged)] == acknowledged, "x was acknowledged, and a crash lost it"
