"""Known bugs, each put into the engine on purpose, and what finds it.

Each names the test that must fail with it. ``chaos mutants`` lets the simulator and the search of
small worlds loose on each as well, and makes the table in ``docs/MUTANTS.md``.

The bugs are those of real systems where there is a record of one, and each rule of the paper's
figure 2 turned off, one at a time.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from consensus.types import Position
from tests.mutation import Mutant, applied

HERE = "tests.consensus"
"""Where the tests are."""

RAFT = "consensus.raft."
STORAGE = "consensus.storage."
NATIVE = "consensus.engines.native."
DRIVER = NATIVE + "driver:Driver."

MUTANTS = (
    Mutant(
        "commits an older term by counting",
        RAFT + "replication:advance_commit",
        " or core.log.term_at(index) != core.term",
        "",
        "raft.test_replication:test_a_leader_never_commits_an_older_term_by_counting",
    ),
    Mutant(
        "the leader counts its own unsynced log",
        RAFT + "replication:advance_commit",
        "core.log.persisted_index",
        "core.log.last_index",
        "raft.test_replication:test_the_leaders_own_sync_may_come_last",
    ),
    Mutant(
        "truncates on a matching append",
        RAFT + "replication:handle_append_entries",
        "if not core.log.has(entry.index, entry.term):",
        "if True:",
        "raft.test_replication:test_followers_truncate_only_on_conflict",
    ),
    Mutant(
        "commits a tail that an empty append did not vouch for",
        RAFT + "replication:handle_append_entries",
        "min(message.leader_commit, last_new_index)",
        "min(message.leader_commit, core.log.last_index)",
        "raft.test_replication:test_an_empty_append_does_not_commit_an_unmatched_tail",
    ),
    Mutant(
        "takes entries without the one before them",
        RAFT + "replication:handle_append_entries",
        "if not core.log.has(message.prev_log_index, message.prev_log_term):",
        "if message.prev_log_index > core.log.last_index:",
        "raft.test_replication:test_entries_are_refused_where_the_one_before_them_is_missing",
    ),
    Mutant(
        "acknowledges entries before they are synced",
        RAFT + "replication:_answer_append",
        "core.send_after_persist(",
        "core.send(",
        "raft.test_replication:test_no_acknowledgement_before_the_entries_are_on_disk",
    ),
    Mutant(
        "a heartbeat commits beyond what is known to match",
        RAFT + "reads:send_round",
        "min(core.commit_index, core.progress[peer].match_index)",
        "core.commit_index",
        "raft.test_replication:test_a_heartbeat_commits_only_what_the_leader_knows_to_match",
    ),
    Mutant(
        "a stale refusal moves the leader back",
        RAFT + "progress:Progress.rejected",
        "if rejected_index <= self.match_index:",
        "if False:",
        "raft.test_replication:test_stale_rejections_are_ignored",
    ),
    Mutant(
        "a late acknowledgement takes back what is known",
        RAFT + "progress:Progress.matched",
        "if index <= self.match_index:",
        "if index == self.match_index:",
        "raft.test_replication:test_a_late_acknowledgement_does_not_take_back_what_is_known",
    ),
    Mutant(
        "a window full of lost bytes never opens again",
        RAFT + "progress:Progress.heard",
        "and self.paused",
        "and len(self._inflight) >= self._messages_max",
        "raft.test_pipelining:test_a_whole_window_that_is_lost_is_sent_again",
        {"bound": "bytes"},
    ),
    Mutant(
        "a repeated forward is appended twice",
        RAFT + "proposals:SeenProposals.add",
        "return False",
        "return True",
        "raft.test_pipelining:test_a_repeated_propose_is_appended_once",
    ),
    Mutant(
        "applies beyond what it has synced",
        RAFT + "core:Core._may_apply_index",
        "min(self.commit_index, self.log.persisted_index)",
        "self.commit_index",
        "raft.test_replication:test_a_follower_applies_only_what_it_has_synced",
    ),
    Mutant(
        "a sync counts for entries that replaced those it wrote",
        RAFT + "core:Core.truncate",
        "min(writing.last_index, last_index)",
        "writing.last_index",
        "raft.test_replication:"
        "test_a_sync_that_ends_late_speaks_only_of_what_was_not_replaced_meanwhile",
    ),
    Mutant(
        "votes twice in a term",
        RAFT + "election:handle_request_vote",
        "free and core.log",
        "core.log",
        "raft.test_election:test_at_most_one_vote_in_a_term_first_come_first_served",
    ),
    Mutant(
        "tells a vote before it is on disk",
        RAFT + "election:answer_vote",
        "core.send_after_persist(",
        "core.send(",
        "raft.test_election:test_no_vote_is_cast_before_it_is_on_disk",
    ),
    Mutant(
        "a vote alone is not synced",
        RAFT + "core:Core.take_ready",
        "must_sync=bool(entries) or promises_changed or",
        "must_sync=bool(entries) or",
        "raft.test_election:test_a_vote_survives_a_restart",
    ),
    Mutant(
        "votes for a shorter log",
        RAFT + "log:RaftLog.is_up_to_date",
        "(last_term, last_index) >= (self.last_term, self.last_index)",
        "last_term >= self.last_term",
        "raft.test_election:test_votes_go_only_to_logs_at_least_as_up_to_date",
        {"candidate": (1, 1), "voter": (1, 1, 1), "granted": False},
    ),
    Mutant(
        "votes for a longer log of an older term",
        RAFT + "log:RaftLog.is_up_to_date",
        "(last_term, last_index) >= (self.last_term, self.last_index)",
        "last_index >= self.last_index",
        "raft.test_election:test_votes_go_only_to_logs_at_least_as_up_to_date",
        {"candidate": (1, 1, 1), "voter": (1, 2), "granted": False},
    ),
    Mutant(
        "counts votes without asking whose they are",
        RAFT + "quorum:_majority_vote",
        "sum(1 for voter in voters if votes.get(voter) is True)",
        "sum(1 for vote in votes.values() if vote)",
        "raft.test_election:test_votes_of_strangers_and_learners_do_not_count",
    ),
    Mutant(
        "helps to depose a leader that it hears",
        RAFT + "core:Core._admit_newer_term",
        "case RequestVote(transfer=False) if election.leader_is_alive(self):",
        "case RequestVote(transfer=False) if False:",
        "raft.test_election:test_a_cut_off_member_cannot_depose_a_live_leader",
        {"pre_vote": False},
    ),
    Mutant(
        "leads on without a majority",
        RAFT + "replication:tick_leader",
        "if not _quorum_is_active(core):",
        "if False:",
        "raft.test_election:test_a_leader_that_a_majority_does_not_answer_steps_down",
    ),
    Mutant(
        "confirms reads before the term's first commit",
        RAFT + "reads:_enqueue",
        "if _own_term_committed(core):",
        "if True:",
        "raft.test_reads:test_read_index_waits_for_the_terms_first_commit",
    ),
    Mutant(
        "an answer to an old round confirms a read",
        RAFT + "replication:handle_heartbeat_response",
        "max(progress.heartbeat_round, message.round)",
        "core.read_queue.round",
        "raft.test_reads:test_an_answer_to_an_earlier_round_confirms_nothing",
    ),
    Mutant(
        "a deposed leader's reads hang",
        RAFT + "core:Core.become_follower",
        "reads.fail_all(self)",
        "pass",
        "raft.test_reads:test_a_deposed_leader_confirms_no_read",
    ),
    Mutant(
        "takes a lease again after it offered leadership",
        RAFT + "reads:lease_valid",
        "and not core.lease_forfeited",
        "and core.transfer_target is None",
        "raft.test_reads:test_a_hand_over_that_was_given_up_voids_leases_for_the_rest_of_the_term",
    ),
    Mutant(
        "a transfer is never given up",
        RAFT + "replication:tick_leader",
        "core.transfer_target = None  #",
        "pass  #",
        "raft.test_transfer:test_a_transfer_is_given_up_after_an_election_timeout",
    ),
    Mutant(
        "uses a configuration only once it is committed",
        RAFT + "core:Core.configuration",
        "self.configurations[-1][1]",
        "next(c for i, c in reversed(self.configurations) if i <= self.commit_index)",
        "raft.test_membership:"
        "test_a_configuration_is_in_force_when_it_is_appended_and_not_when_committed",
    ),
    Mutant(
        "keeps a configuration that was truncated",
        RAFT + "membership:truncated",
        "core.configurations.pop()",
        "break",
        "raft.test_membership:test_a_configuration_is_undone_when_it_is_truncated",
    ),
    Mutant(
        "truncation undoes one configuration only",
        RAFT + "membership:truncated",
        "core.configurations.pop()",
        "core.configurations.pop()\n        break",
        "raft.test_membership:test_truncation_undoes_every_configuration_after_it",
    ),
    Mutant(
        "changes members before an entry of its own is committed",
        RAFT + "membership:_check_may_change",
        "if not core.log.has(core.commit_index, core.term):",
        "if False:",
        "raft.test_membership:test_no_change_before_an_entry_of_the_leaders_own_term_is_committed",
    ),
    Mutant(
        "changes members twice at once",
        RAFT + "membership:_check_may_change",
        "if core.configurations[-1][0] > core.commit_index or core.configuration.joint:",
        "if False:",
        "raft.test_membership:test_one_change_at_a_time",
    ),
    Mutant(
        "gives up campaigning before its own removal is committed",
        RAFT + "membership:may_campaign",
        "configuration_at(core, core.commit_index)",
        "core.configuration",
        "raft.test_membership:test_a_member_whose_removal_is_not_committed_yet_still_campaigns",
        {"learners": ""},
    ),
    Mutant(
        "a joint configuration needs the new majority only",
        RAFT + "quorum:committed_index",
        "if configuration.voters_outgoing:",
        "if False:",
        "raft.test_membership:test_both_majorities_are_needed_while_joint",
    ),
    Mutant(
        "learners count",
        RAFT + "quorum:committed_index",
        "_majority_index(configuration.voters, match_index)",
        "_majority_index(configuration.members, match_index)",
        "raft.test_membership:test_learners_receive_everything_and_count_for_nothing",
    ),
    Mutant(
        "many members change in one step",
        RAFT + "configuration:Configuration.change",
        "<= 1",
        "<= 2",
        "raft.test_configuration:test_each_step_of_a_change_overlaps_the_one_before",
    ),
    Mutant(
        "a removed leader leads on",
        RAFT + "membership:committed",
        "if not configuration.is_voter(core.node_id):",
        "if False:",
        "raft.test_membership:test_a_removed_leader_steps_down_once_that_is_committed",
    ),
    Mutant(
        "a snapshot drops entries that the log has after it",
        RAFT + "replication:handle_install_snapshot",
        "if core.log.has(snapshot.index, snapshot.term):",
        "if False:",
        "raft.test_log_snapshots:test_entries_after_a_snapshots_last_one_are_kept",
    ),
    Mutant(
        "the driver says what it must sync first",
        DRIVER + "_handle",
        "for message in ready.messages:",
        "for message in (*ready.messages, *ready.messages_after_persist):",
        "native.test_driver_recovery:test_what_is_acknowledged_is_synced_when_it_is_said",
    ),
    Mutant(
        "the hard state is written in front of its entries",
        DRIVER + "_handle",
        "records.append(ready.hard_state)",
        "records.insert(0, ready.hard_state)",
        "native.test_driver_recovery:"
        "test_a_commit_index_never_speaks_of_entries_that_a_crash_cut_off",
    ),
    Mutant(
        "believes a snapshot that it has not checked",
        NATIVE + "startup:StartUp._newest_snapshot",
        "self._snapshots.verify(stored.raft)",
        "pass",
        "native.test_driver_recovery:test_a_damaged_snapshot_does_not_take_the_logs_place",
    ),
    Mutant(
        "keeps a log that disagrees with a received snapshot",
        NATIVE + "startup:StartUp._settle",
        "not _joins(stored.raft, recovered)",
        "stored.raft.index > recovered.last_index",
        "native.test_driver_recovery:"
        "test_a_received_snapshot_wins_over_a_log_that_disagrees_with_it",
    ),
    Mutant(
        "goes on with a machine that the log does not confirm",
        NATIVE + "startup:StartUp._confirmed",
        "return recovered.entries[offset].term == position.term",
        "return True",
        "native.test_driver_recovery:"
        "test_a_durable_machine_that_the_log_does_not_confirm_is_rebuilt",
        {"position": Position(4, 2, 9)},
    ),
    Mutant(
        "the log is not synced",
        STORAGE + "wal:WriteAheadLog.append",
        "segment.file.sync()",
        "pass",
        "storage.test_wal_crashes:"
        "test_every_crash_leaves_what_was_synced_and_whole_records_of_what_was_not",
        {"seed": 0},
    ),
    Mutant(
        "a failed sync is tried again",
        STORAGE + "wal:WriteAheadLog._telling",
        "if self._failed:",
        "if False:",
        "storage.test_wal:test_a_failed_sync_is_final",
    ),
    Mutant(
        "segments are released that are needed yet",
        STORAGE + "wal:WriteAheadLog.release_before",
        "self._segments[0].last_index <= index",
        "self._segments[0].last_index <= index + 15",
        "storage.test_wal:test_segments_are_released_once_a_base_covers_them",
    ),
    Mutant(
        "a new segment forgets the hard state",
        STORAGE + "wal:WriteAheadLog._add_segment",
        "encode(self._hard_state)",
        "encode(HardState())",
        "storage.test_wal:test_start_over_leaves_nothing_of_the_old_log",
    ),
    Mutant(
        "a torn tail is not cut",
        STORAGE + "recovery:_read_segment",
        "erase_tail(found.file, offset)",
        "0",
        "storage.test_wal_crashes:test_remains_of_a_torn_write_never_come_back",
    ),
    Mutant(
        "damage is cut as if it were torn",
        STORAGE + "recovery:_read_segment",
        "(promised is not None and offset < promised) or (why and following is not None)",
        "why and following is not None",
        "storage.test_wal_crashes:test_no_flipped_bit_of_what_was_synced_is_accepted_or_cut",
        {"roll": False},
    ),
    Mutant(
        "a damaged member votes",
        RAFT + "election:handle_request_vote",
        "free = free and not core.repairing",
        "pass",
        "native.test_repair:test_a_damaged_member_neither_votes_nor_campaigns_until_it_is_repaired",
    ),
    Mutant(
        "a damaged member campaigns",
        RAFT + "membership:may_campaign",
        "if core.repairing:",
        "if False:",
        "native.test_repair:test_a_damaged_member_neither_votes_nor_campaigns_until_it_is_repaired",
    ),
    Mutant(
        "a damaged member calls itself repaired by any entry",
        RAFT + "core:Core.take_ready",
        " > self.lost_term",
        " > 0",
        "native.test_repair:test_a_damaged_member_neither_votes_nor_campaigns_until_it_is_repaired",
    ),
    Mutant(
        "a damaged member comes back in a term that it may have voted in",
        STORAGE + "wal:WriteAheadLog.distrust",
        "lost_term + 1, None",
        "lost_term, None",
        "native.test_repair:test_a_damaged_member_comes_back_in_a_term_of_which_it_promised_nothing",
    ),
    Mutant(
        "forgets that it is damaged at its next start",
        STORAGE + "records:encode",
        "if record.lost_term:",
        "if False:",
        "native.test_repair:test_a_damaged_member_stays_so_across_restarts",
    ),
    Mutant(
        "a damaged beginning makes the newest segment look unfinished",
        STORAGE + "recovery:_chain",
        "was_never_used(file, number)",
        "synced_offset(file, number) is None",
        "native.test_repair:test_no_damaged_page_goes_unnoticed",
    ),
    Mutant(
        "a term that a crash kept without its note is not noted again",
        STORAGE + "wal:WriteAheadLog._settle_tail",
        "noted is not None and self._hard_state.term > noted",
        "False",
        "storage.test_wal:test_a_term_whose_note_was_lost_in_a_crash_is_noted_again",
    ),
    Mutant(
        "drops a newest segment whose both first pages are damaged",
        STORAGE + "segments:was_never_used",
        " or _first_block_is_damaged(file)",
        "",
        "storage.test_wal:test_a_newest_segment_whose_both_first_pages_are_damaged_is_not_dropped",
    ),
    Mutant(
        "takes a log whose first records cannot be read for a new one",
        STORAGE + "segments:was_never_used",
        "if _is_touched(file, BLOCK_BYTES + opening_bytes):",
        "if False:",
        "storage.test_wal:test_a_log_whose_both_first_pages_are_damaged_is_not_taken_for_a_new_one",
        {"page": bytes(4096)},
    ),
    Mutant(
        "holds a lease although followers may elect at once",
        RAFT + "reads:lease_valid",
        "and not core.config.early_elections",
        "",
        "raft.test_election:test_with_early_elections_there_are_no_leases",
    ),
    Mutant(
        "takes any ended connection for the leader's",
        RAFT + "election:leader_gone",
        " or core.leader != peer",
        "",
        "raft.test_election:test_another_members_connection_is_no_news_of_the_leader",
    ),
    Mutant(
        "missing segments are not missed",
        STORAGE + "recovery:read_log",
        "if recovered.unsure:",
        "if False:",
        "storage.test_wal:test_a_missing_segment_is_damage",
        {"which": 0},
    ),
    Mutant(
        "an unfinished segment is damage",
        STORAGE + "recovery:_chain",
        "was_never_used(file, number)",
        "False",
        "storage.test_wal_crashes:"
        "test_every_crash_leaves_what_was_synced_and_whole_records_of_what_was_not",
        {"seed": 0},
    ),
    Mutant(
        "a snapshot takes its name before it is synced",
        STORAGE + "snapshots:SnapshotWriter.finish",
        "self._file.sync()",
        "pass",
        "storage.test_snapshots:test_every_crash_leaves_the_old_newest_or_the_new_one_whole",
    ),
    Mutant(
        "goes on with a snapshot that is another one",
        NATIVE + "incoming:IncomingSnapshots.begin",
        "(unfinished.id, unfinished.meta) != (announced.id, announced.meta)",
        "False",
        "native.test_streams:test_another_snapshot_throws_away_what_came_of_the_last_one",
    ),
    Mutant(
        "takes a received snapshot without looking at its checksum",
        NATIVE + "incoming:Reception.finish",
        "(size, checksum) != (unfinished.size, unfinished.checksum)",
        "size != unfinished.size",
        "native.test_streams:test_what_is_not_what_was_sent_is_refused_and_not_kept",
    ),
    Mutant(
        "shortens the log under a snapshot that is on its way",
        DRIVER + "shorten_to_command",
        " + self.outgoing.held_commands",
        "",
        "native.test_streams:test_the_log_keeps_what_a_member_needs_after_its_snapshot",
    ),
    Mutant(
        "shortens the log within an entry",
        NATIVE + "commands:CommandIndex.place_covered_by",
        " or last_commands[offset] > command",
        "",
        "native.test_batches:test_the_log_is_shortened_by_whole_entries",
    ),
    Mutant(
        "gives a machine again what it had written of an entry",
        DRIVER + "_apply_now",
        "batch[0].index <= self._delivered.index",
        "False",
        "native.test_batches:test_a_machine_that_wrote_half_an_entry_is_given_the_other_half",
        {"flushed": 2},
    ),
    Mutant(
        "leaves the rest of an entry that a machine has begun for later",
        NATIVE + "startup:StartUp._new_core",
        "max(hard_state.commit_index, begun)",
        "hard_state.commit_index",
        "native.test_batches:test_a_machine_that_wrote_half_an_entry_is_given_the_other_half",
        {"flushed": 2},
    ),
    Mutant(
        "says nothing to a leader whose snapshot is here already",
        NATIVE + "incoming:IncomingSnapshots.begin",
        "core.step(announced.message_to(core.node_id))",
        "pass",
        "native.test_streams:test_a_snapshot_of_what_is_here_already_is_not_wanted_and_not_kept",
    ),
    Mutant(
        "hands over before what it holds back",
        DRIVER + "transfer_leadership",
        "self._gathering.release()",
        "pass",
        "native.test_gathering:test_what_came_before_a_hand_over_is_appended_before_it",
    ),
    Mutant(
        "holds proposals back while it is being removed",
        NATIVE + "gathering:Gathering._is_under_way",
        "and not core.is_leaving",
        "",
        "native.test_gathering:test_a_leader_that_goes_refuses_at_once",
    ),
)


def run_killer(mutant: Mutant, tmp_path: Path) -> None:
    """Run the test named beside a mutant, with the arguments it names and the test's fixtures."""
    module, _, name = mutant.killer.partition(":")
    test = getattr(importlib.import_module(f"{HERE}.{module}"), name)
    with pytest.MonkeyPatch.context() as patch:
        fixtures = {"tmp_path": tmp_path, "monkeypatch": patch}
        wanted = {
            name: fixtures[name] for name in fixtures if name in inspect.signature(test).parameters
        }
        test(**mutant.args, **wanted)


def found_by_test(mutant: Mutant, tmp_path: Path) -> bool:
    """Whether the test named beside a mutant fails with it, and passes without."""
    run_killer(mutant, tmp_path / "well")
    with applied(mutant):
        try:
            run_killer(mutant, tmp_path / "ill")
        except (Exception, pytest.fail.Exception):
            return True
    return False
