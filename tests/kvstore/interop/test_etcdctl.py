"""What real etcdctl 3.4 does with three nodes, command by command; all that it prints is checked.

Each test has keys of its own and reads the revision that it starts from, for they share a cluster.
"""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path

import pytest

from kvstore.snapshot_file import check_snapshot_file
from tests.clusters import Cluster
from tests.kvstore.interop.conftest import Etcdctl
from tests.waiting import wait_until_sync

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("etcdctl")]


def test_put_get_del(etcdctl: Etcdctl) -> None:
    assert etcdctl("put", "/kv/a", "1") == "OK\n"
    assert etcdctl("put", "/kv/b", "2") == "OK\n"
    assert etcdctl("put", "/kv/b", "3", "--prev-kv") == "OK\n/kv/b\n2\n"
    assert etcdctl("put", "/kvx", "outside") == "OK\n"
    assert etcdctl("get", "/kv/a") == "/kv/a\n1\n"
    assert etcdctl("get", "/kv/", "--prefix") == "/kv/a\n1\n/kv/b\n3\n"
    assert etcdctl("get", "/kv/a", "/kv/c", "--keys-only") == "/kv/a\n\n/kv/b\n\n"
    descending = ("--prefix", "--sort-by=KEY", "--order=DESCEND", "--limit=1")
    assert etcdctl("get", "/kv/", *descending, "--print-value-only") == "3\n"
    assert etcdctl("del", "/kv/a", "--prev-kv") == "1\n/kv/a\n1\n"
    assert etcdctl("del", "/kv/a") == "0\n"
    assert etcdctl("del", "/kv/", "--prefix") == "1\n"
    assert etcdctl("get", "/kv/", "--prefix") == ""


def test_every_member_answers_alike(etcdctl: Etcdctl) -> None:
    etcdctl("put", "/every", "1", endpoints=etcdctl.cluster.endpoints[1:2])
    answers = []
    for endpoint in etcdctl.cluster.endpoints:
        answer = json.loads(etcdctl("get", "/every", "-w", "json", endpoints=[endpoint]))
        answers.append((answer["header"]["revision"], answer["kvs"], answer["count"]))
    assert answers[0][1][0]["value"] == "MQ=="
    assert answers[1:] == answers[:1] * 2


def test_a_dead_endpoint_in_the_list(etcdctl: Etcdctl) -> None:
    some = ["127.0.0.1:1", *etcdctl.cluster.endpoints]
    assert etcdctl("put", "/over", "1", endpoints=some) == "OK\n"
    assert etcdctl("get", "/over", endpoints=some) == "/over\n1\n"


def test_txn(etcdctl: Etcdctl) -> None:
    request = 'value("/t/a") = "1"\n\nput /t/a 2\nget /t/a\n\nput /t/b else\nget /t/ --prefix\n\n'
    assert etcdctl("txn", stdin=request) == "FAILURE\n\nOK\n\n/t/b\nelse\n"
    etcdctl("put", "/t/a", "1")
    assert etcdctl("txn", stdin=request) == "SUCCESS\n\nOK\n\n/t/a\n2\n"
    twice = "\nput /t/c 1\nput /t/c 2\n\n\n"
    refused = etcdctl.run("txn", stdin=twice)
    assert (refused.status, refused.stdout) == (1, "")
    assert refused.error == "Error: etcdserver: duplicate key given in txn request"


def test_watch_from_a_revision(etcdctl: Etcdctl) -> None:
    start = etcdctl.revision() + 1
    etcdctl("put", "/w/a", "1")
    etcdctl("put", "/other", "outside")
    etcdctl("del", "/w/a")
    watching = etcdctl.start("watch", "/w/", "--prefix", "--prev-kv", "--rev", str(start))
    history = "PUT\n/w/a\n1\nDELETE\n/w/a\n1\n/w/a\n\n"
    watching.wait_for(history)
    etcdctl("put", "/w/b", "2")
    watching.wait_for("PUT\n/w/b\n2\n")
    assert watching.output() == history + "PUT\n/w/b\n2\n"
    watching.interrupt()


def test_leases(etcdctl: Etcdctl) -> None:
    granted = etcdctl("lease", "grant", "60")
    found = re.fullmatch(r"lease ([0-9a-f]+) granted with TTL\(60s\)\n", granted)
    assert found is not None
    lease = found[1]
    etcdctl("put", "/l/a", "1", "--lease", lease)
    etcdctl("put", "/l/b", "2", "--lease", lease)
    left = r"remaining\((59|60)s\)"
    told = etcdctl("lease", "timetolive", lease, "--keys")
    keys = r"attached keys\(\[/l/a /l/b\]\)"
    assert re.fullmatch(rf"lease {lease} granted with TTL\(60s\), {left}, {keys}\n", told)
    told = etcdctl("lease", "keep-alive", "--once", lease)
    assert told == f"lease {lease} keepalived with TTL(60)\n"
    assert etcdctl("lease", "list").endswith(f"\n{lease}\n")
    assert etcdctl("lease", "revoke", lease) == f"lease {lease} revoked\n"
    assert etcdctl("get", "/l/", "--prefix") == ""
    assert etcdctl("lease", "timetolive", lease) == f"lease {lease} already expired\n"
    again = etcdctl.run("lease", "revoke", lease)
    assert again.status == 1
    assert again.error == "Error: failed to revoke lease (etcdserver: requested lease not found)"


def test_a_lease_lives_as_long_as_it_is_kept_alive(etcdctl: Etcdctl) -> None:
    lease = etcdctl("lease", "grant", "2").split()[1]
    etcdctl("put", "/kept", "1", "--lease", lease)
    keeping = etcdctl.start("lease", "keep-alive", lease)
    renewed = f"lease {lease} keepalived with TTL(2)\n"
    # One renewal each third of the TTL: after seven it would have ended twice.
    wait_until_sync(lambda: keeping.output().count(renewed) >= 7, 20, str(keeping.path))
    assert etcdctl("get", "/kept") == "/kept\n1\n"
    keeping.process.kill()
    keeping.process.wait()
    wait_until_sync(lambda: etcdctl("get", "/kept") == "", 20, "the lease expires")
    assert etcdctl("lease", "timetolive", lease) == f"lease {lease} already expired\n"


def test_compaction(etcdctl: Etcdctl) -> None:
    for number in range(3):
        etcdctl("put", "/c", str(number))
    revision = etcdctl.revision()
    assert etcdctl("get", "/c", "--rev", str(revision - 1)) == "/c\n1\n"
    assert etcdctl("compaction", str(revision)) == f"compacted revision {revision}\n"
    compacted = "etcdserver: mvcc: required revision has been compacted"
    for endpoint in etcdctl.cluster.endpoints:
        old = etcdctl.run("get", "/c", "--rev", str(revision - 1), endpoints=[endpoint])
        assert (old.status, old.error) == (1, f"Error: {compacted}")
    again = etcdctl.run("compaction", str(revision))
    assert (again.status, again.error) == (1, f"Error: {compacted}")
    future = "Error: etcdserver: mvcc: required revision is a future revision"
    for command in (("get", "/c", "--rev"), ("compaction",)):
        ahead = etcdctl.run(*command, str(revision + 100))
        assert (ahead.status, ahead.error) == (1, future)
    watched = etcdctl.run("watch", "/c", "--rev", str(revision - 1))
    assert watched.status != 0
    assert watched.stderr.startswith(f"watch was canceled ({compacted})\n")
    assert etcdctl("get", "/c") == "/c\n2\n"


def test_endpoint_status(etcdctl: Etcdctl) -> None:
    etcdctl("put", "/status", "1")
    statuses = etcdctl.json("endpoint", "status")
    assert [each["Endpoint"] for each in statuses] == etcdctl.cluster.endpoints
    ids = [each["Status"]["header"]["member_id"] for each in statuses]
    assert len(set(ids)) == 3
    (leader,) = {each["Status"]["leader"] for each in statuses}
    assert leader in ids
    assert len({each["Status"]["header"]["cluster_id"] for each in statuses}) == 1
    assert len({each["Status"]["raftTerm"] for each in statuses}) == 1
    for each in statuses:
        status = each["Status"]
        assert re.fullmatch(r"3\.\d+\.\d+", status["version"])
        assert status["dbSize"] >= status["dbSizeInUse"] > 0
        assert status["raftIndex"] >= status["raftAppliedIndex"] > 0
        assert "errors" not in status

    table = etcdctl("endpoint", "status", "-w", "table").splitlines()
    assert [cell.strip() for cell in table[1].strip("|").split("|")] == [
        *("ENDPOINT", "ID", "VERSION", "DB SIZE", "IS LEADER", "IS LEARNER"),
        *("RAFT TERM", "RAFT INDEX", "RAFT APPLIED INDEX", "ERRORS"),
    ]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table[3:6]]
    assert [row[0] for row in rows] == etcdctl.cluster.endpoints
    assert [row[1] for row in rows] == [f"{identity:x}" for identity in ids]
    leads = ["true" if identity == leader else "false" for identity in ids]
    assert [row[4] for row in rows] == leads
    assert {row[9] for row in rows} == {""}


def test_endpoint_health_and_hashes(etcdctl: Etcdctl) -> None:
    health = etcdctl.json("endpoint", "health")
    assert {each["endpoint"] for each in health} == set(etcdctl.cluster.endpoints)
    assert [each["health"] for each in health] == [True] * 3
    table = etcdctl("endpoint", "health", "-w", "table")
    assert len(re.findall(r"\|\s+true \|", table)) == 3
    # etcdctl 3.4 tells health on standard error.
    plain = etcdctl.run("endpoint", "health", "--cluster").stderr
    assert plain.count(" is healthy: successfully committed proposal: took = ") == 3
    hashes = etcdctl.json("endpoint", "hashkv")
    assert len({each["HashKV"]["hash"] for each in hashes}) == 1, hashes


@pytest.mark.parametrize(
    "command", [("endpoint", "status"), ("endpoint", "hashkv"), ("defrag",)], ids=" ".join
)
def test_calls_to_one_endpoint_that_is_given_as_url(
    etcdctl: Etcdctl, command: tuple[str, ...]
) -> None:
    """etcdctl 3.4 sends the URL as the :authority of these."""
    urls = [f"http://{endpoint}" for endpoint in etcdctl.cluster.endpoints]
    assert etcdctl.run(*command, endpoints=urls).status == 0
    assert etcdctl.run(*command, "--cluster").status == 0


def test_member_list(etcdctl: Etcdctl, cluster: Cluster) -> None:
    expected = {
        f"{member.name}, http://{member.peer}, http://{member.client}" for member in cluster.members
    }
    lines = etcdctl("member", "list").splitlines()
    found = set()
    for line in lines:
        parts = line.split(", ")
        assert re.fullmatch("[0-9a-f]+", parts[0])
        assert (parts[1], parts[5]) == ("started", "false")
        found.add(", ".join(parts[2:5]))
    assert found == expected
    table = etcdctl("member", "list", "-w", "table")
    assert table.count("| started |") == 3
    assert {each["name"] for each in etcdctl.json("member", "list")["members"]} == {
        member.name for member in cluster.members
    }


def test_snapshot_save(etcdctl: Etcdctl, tmp_path: Path) -> None:
    for number in range(20):
        etcdctl("put", f"/s/{number}", "x" * 1000)
    path = tmp_path / "saved.db"
    one = etcdctl.cluster.endpoints[2:3]
    told = etcdctl("snapshot", "save", str(path), endpoints=one)
    assert told == f"Snapshot saved at {path}\n"
    # etcd's own rule: pages of 512 bytes, and a SHA-256 of 32 behind them.
    assert path.stat().st_size % 512 == 32
    assert check_snapshot_file(path) > 20 * 1000


def test_alarms(etcdctl: Etcdctl) -> None:
    assert etcdctl("alarm", "list") == ""
    assert etcdctl("alarm", "disarm") == ""


def test_defrag(etcdctl: Etcdctl) -> None:
    assert etcdctl("defrag").splitlines() == [
        f"Finished defragmenting etcd member[{endpoint}]" for endpoint in etcdctl.cluster.endpoints
    ]


def test_lock_and_election(etcdctl: Etcdctl) -> None:
    assert etcdctl("lock", "mutex", "echo", "held") == "held\n"
    electing = etcdctl.start("elect", "post", "candidate")
    electing.wait_for("\ncandidate\n")
    assert re.fullmatch(r"post/[0-9a-f]+\ncandidate\n", electing.output())
    electing.interrupt()


def test_what_is_not_there_says_so_by_name(etcdctl: Etcdctl) -> None:
    refused = etcdctl.run("user", "list")
    assert refused.status == 1
    assert "code = Unimplemented" in refused.error
    assert "Auth.UserList is not implemented" in refused.error


def test_leadership_is_handed_over(etcdctl: Etcdctl) -> None:
    statuses = etcdctl.json("endpoint", "status")
    leader = statuses[0]["Status"]["leader"]
    ids = [each["Status"]["header"]["member_id"] for each in statuses]
    target = next(id for id in ids if id != leader)
    follower = etcdctl.cluster.endpoints[ids.index(target)]
    refused = etcdctl.run("move-leader", f"{target:x}", endpoints=[follower])
    assert (refused.status, refused.error) == (
        128,
        f"Error: no leader endpoint given at [{follower}]",
    )
    refused = etcdctl.run("move-leader", "12")
    assert refused.error == "Error: etcdserver: bad leader transferee"
    moved = f"Leadership transferred from {leader:x} to {target:x}\n"
    assert etcdctl("move-leader", f"{target:x}") == moved

    def leaders() -> set[int]:
        return {each["Status"]["leader"] for each in etcdctl.json("endpoint", "status")}

    wait_until_sync(lambda: leaders() == {target}, 20, "all members know the new leader")


def test_disks_and_peers_are_measured_under_etcds_names(etcdctl: Etcdctl) -> None:
    etcdctl("put", "measured", "x")
    for client in etcdctl.cluster.endpoints:
        with urllib.request.urlopen(f"http://{client}/metrics", timeout=20) as answer:
            page = answer.read().decode()
        found = {line.split(" ")[0]: line.split(" ")[1] for line in page.splitlines() if line}
        assert float(found["etcd_disk_wal_fsync_duration_seconds_count"]) > 0
        assert float(found['etcd_disk_wal_fsync_duration_seconds_bucket{le="+Inf"}']) > 0
        assert float(found["etcd_disk_backend_commit_duration_seconds_sum"]) > 0
        for name in ("sent_bytes_total{To", "received_bytes_total{From"):
            peers = [
                value for key, value in found.items() if key.startswith(f"etcd_network_peer_{name}")
            ]
            assert len(peers) == 2
            assert all(float(value) > 0 for value in peers)
