"""The format for people and shell scripts: one thing on a line, no ornaments."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from kvstore.cli.kvctl.golang import duration, hexadecimal, quote, size
from kvstore.cli.kvctl.printers import Health, Printer, SnapshotStatus
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb import mvccpb_pb2 as mvccpb


def member_row(member: pb.Member) -> list[str]:
    """Return a member's columns."""
    return [
        f"{member.ID:x}",
        "started" if member.name else "unstarted",
        member.name,
        ",".join(member.peerURLs),
        ",".join(member.clientURLs),
        str(member.isLearner).lower(),
    ]


def status_row(endpoint: str, status: pb.StatusResponse) -> list[str]:
    """Return the columns of an endpoint's status."""
    return [
        endpoint,
        f"{status.header.member_id:x}",
        status.version,
        size(status.dbSize),
        str(status.leader == status.header.member_id).lower(),
        str(status.isLearner).lower(),
        str(status.raftTerm),
        str(status.raftIndex),
        str(status.raftAppliedIndex),
        ", ".join(status.errors),
    ]


def snapshot_row(status: SnapshotStatus) -> list[str]:
    """Return the columns of a snapshot's status."""
    return [
        f"{status.hash:x}",
        str(status.revision),
        str(status.total_keys),
        size(status.total_size_bytes),
    ]


class SimplePrinter(Printer):
    """Plain lines; with ``--hex`` keys and values as escapes."""

    name = "simple"

    def __init__(self, hexadecimal_output: bool) -> None:
        self._hex = hexadecimal_output

    def _shown(self, data: bytes) -> bytes:
        return hexadecimal(data) if self._hex else data

    def _pair(self, kv: mvccpb.KeyValue) -> None:
        self.write(self._shown(kv.key), self._shown(kv.value))

    def get(self, answer: pb.RangeResponse, value_only: bool = False) -> None:
        """Print key and value on a line each."""
        for kv in answer.kvs:
            if value_only:
                self.write(self._shown(kv.value))
            else:
                self._pair(kv)

    def put(self, answer: pb.PutResponse) -> None:
        """Print OK, and the previous pair if asked for."""
        self.write("OK")
        if answer.HasField("prev_kv"):
            self._pair(answer.prev_kv)

    def delete(self, answer: pb.DeleteRangeResponse) -> None:
        """Print how many keys there were."""
        self.write(str(answer.deleted))
        for kv in answer.prev_kvs:
            self._pair(kv)

    def txn(self, answer: pb.TxnResponse) -> None:
        """Print which branch ran, and what each of its operations returned."""
        self.write("SUCCESS" if answer.succeeded else "FAILURE")
        for response in answer.responses:
            self.write("")
            match response.WhichOneof("response"):
                case "response_range":
                    self.get(response.response_range)
                case "response_put":
                    self.put(response.response_put)
                case "response_delete_range":
                    self.delete(response.response_delete_range)
                case _:
                    self.txn(response.response_txn)

    def watch(self, answer: pb.WatchResponse) -> None:
        """Print each event's type, the pair before if asked for, and the pair."""
        for event in answer.events:
            self.write(mvccpb.Event.EventType.Name(event.type))
            if event.HasField("prev_kv"):
                self._pair(event.prev_kv)
            self._pair(event.kv)

    def grant(self, answer: pb.LeaseGrantResponse) -> None:
        """Print the lease's ID."""
        self.write(f"lease {answer.ID:016x} granted with TTL({answer.TTL}s)")

    def revoke(self, lease_id: int, answer: pb.LeaseRevokeResponse) -> None:
        """Say that it is revoked."""
        self.write(f"lease {lease_id:016x} revoked")

    def keep_alive(self, answer: pb.LeaseKeepAliveResponse) -> None:
        """Say for how long it is renewed, or that it is gone."""
        if answer.TTL <= 0:
            self.write(f"lease {answer.ID:016x} expired or revoked.")
        else:
            self.write(f"lease {answer.ID:016x} keepalived with TTL({answer.TTL})")

    def time_to_live(self, answer: pb.LeaseTimeToLiveResponse, keys: bool) -> None:
        """Say what remains, and what is attached."""
        if answer.grantedTTL == 0 and answer.TTL == -1:
            self.write(f"lease {answer.ID:016x} already expired")
            return
        text = (
            f"lease {answer.ID:016x} granted with TTL({answer.grantedTTL}s), "
            f"remaining({answer.TTL}s)"
        )
        if keys:
            self.write(text.encode() + b", attached keys([" + b" ".join(answer.keys) + b"])")
        else:
            self.write(text)

    def leases(self, answer: pb.LeaseLeasesResponse) -> None:
        """Print the IDs."""
        self.write(f"found {len(answer.leases)} leases")
        self.write(*(f"{lease.ID:016x}" for lease in answer.leases))

    def member_list(self, answer: pb.MemberListResponse) -> None:
        """Print a line for each member."""
        self.write(*(", ".join(member_row(member)) for member in answer.members))

    def member_add(self, name: str, answer: pb.MemberAddResponse) -> None:
        """Print the ID, and the settings to start the member with, for a shell to read."""
        added = answer.member
        pairs = [
            f"{name if member.ID == added.ID else member.name}={url}"
            for member in answer.members
            for url in member.peerURLs
        ]
        settings = {
            "ETCD_NAME": name,
            "ETCD_INITIAL_CLUSTER": ",".join(pairs),
            "ETCD_INITIAL_ADVERTISE_PEER_URLS": ",".join(added.peerURLs),
            "ETCD_INITIAL_CLUSTER_STATE": "existing",
        }
        self.write(
            f"Member {added.ID:16x} added to cluster {answer.header.cluster_id:16x}",
            "",
            *(f"{variable}={quote(text.encode())}" for variable, text in settings.items()),
        )

    def member_remove(self, member_id: int, answer: pb.MemberRemoveResponse) -> None:
        """Say that it is gone."""
        self.write(f"Member {member_id:16x} removed from cluster {answer.header.cluster_id:16x}")

    def member_update(self, member_id: int, answer: pb.MemberUpdateResponse) -> None:
        """Say that it is moved."""
        self.write(f"Member {member_id:16x} updated in cluster {answer.header.cluster_id:16x}")

    def member_promote(self, member_id: int, answer: pb.MemberPromoteResponse) -> None:
        """Say that it votes."""
        self.write(f"Member {member_id:16x} promoted in cluster {answer.header.cluster_id:16x}")

    def move_leader(self, leader: int, target: int, answer: pb.MoveLeaderResponse) -> None:
        """Say who leads after whom."""
        self.write(f"Leadership transferred from {leader:16x} to {target:16x}")

    def endpoint_health(self, all_health: Sequence[Health]) -> None:
        """Print a line for each endpoint."""
        for health in all_health:
            if health.error:
                print(
                    f"{health.endpoint} is unhealthy: failed to commit proposal: {health.error}",
                    file=sys.stderr,
                )
            else:
                self.write(
                    f"{health.endpoint} is healthy: successfully committed proposal: "
                    f"took = {duration(health.took_s)}"
                )

    def endpoint_status(self, statuses: Sequence[tuple[str, pb.StatusResponse]]) -> None:
        """Print a line for each endpoint."""
        self.write(*(", ".join(status_row(*each)) for each in statuses))

    def endpoint_hashkv(self, hashes: Sequence[tuple[str, pb.HashKVResponse]]) -> None:
        """Print a line for each endpoint."""
        self.write(*(f"{endpoint}, {answer.hash}" for endpoint, answer in hashes))

    def alarm(self, answer: pb.AlarmResponse) -> None:
        """Print a line for each alarm."""
        for alarm in answer.alarms:
            self.write(f"memberID:{alarm.memberID} alarm:{pb.AlarmType.Name(alarm.alarm)} ")

    def snapshot_status(self, status: SnapshotStatus) -> None:
        """Print hash, revision, number of keys and size."""
        self.write(", ".join(snapshot_row(status)))
