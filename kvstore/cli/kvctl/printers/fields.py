"""The format with every field on a line of its own: ``"Key" : "/a"``."""

from __future__ import annotations

from collections.abc import Sequence

from kvstore.cli.kvctl.golang import duration, quote
from kvstore.cli.kvctl.printers import Health, Printer, SnapshotStatus
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb import mvccpb_pb2 as mvccpb


class FieldsPrinter(Printer):
    """Names in quotes, strings as Go quotes them, numbers bare."""

    name = "fields"

    def _field(self, name: str, value: bytes | str | int) -> None:
        if isinstance(value, bool):
            shown = str(value).lower()
        elif isinstance(value, int):
            shown = str(value)
        else:
            shown = quote(value.encode() if isinstance(value, str) else value)
        self.write(f'"{name}" : {shown}')

    def _header(self, header: pb.ResponseHeader) -> None:
        self._field("ClusterID", header.cluster_id)
        self._field("MemberID", header.member_id)
        self._field("Revision", header.revision)
        self._field("RaftTerm", header.raft_term)

    def _pair(self, prefix: str, kv: mvccpb.KeyValue) -> None:
        self._field(f"{prefix}Key", kv.key)
        self._field(f"{prefix}CreateRevision", kv.create_revision)
        self._field(f"{prefix}ModRevision", kv.mod_revision)
        self._field(f"{prefix}Version", kv.version)
        self._field(f"{prefix}Value", kv.value)
        self._field(f"{prefix}Lease", kv.lease)

    def get(self, answer: pb.RangeResponse, value_only: bool = False) -> None:
        """Print every field."""
        self._header(answer.header)
        for kv in answer.kvs:
            self._pair("", kv)
        self._field("More", answer.more)
        self._field("Count", answer.count)

    def put(self, answer: pb.PutResponse) -> None:
        """Print every field."""
        self._header(answer.header)
        if answer.HasField("prev_kv"):
            self._pair("Prev", answer.prev_kv)

    def delete(self, answer: pb.DeleteRangeResponse) -> None:
        """Print every field."""
        self._header(answer.header)
        self._field("Deleted", answer.deleted)
        for kv in answer.prev_kvs:
            self._pair("Prev", kv)

    def txn(self, answer: pb.TxnResponse) -> None:
        """Print every field, and those of each operation's answer."""
        self._header(answer.header)
        self._field("Succeeded", answer.succeeded)
        for response in answer.responses:
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
        """Print every field of every event."""
        self._header(answer.header)
        for event in answer.events:
            self.write(f'"Type" : {mvccpb.Event.EventType.Name(event.type)}')
            if event.HasField("prev_kv"):
                self._pair("Prev", event.prev_kv)
            self._pair("", event.kv)

    def grant(self, answer: pb.LeaseGrantResponse) -> None:
        """Print every field."""
        self._header(answer.header)
        self._field("ID", answer.ID)
        self._field("TTL", answer.TTL)

    def revoke(self, lease_id: int, answer: pb.LeaseRevokeResponse) -> None:
        """Print the header."""
        self._header(answer.header)

    def keep_alive(self, answer: pb.LeaseKeepAliveResponse) -> None:
        """Print every field."""
        self._header(answer.header)
        self._field("ID", answer.ID)
        self._field("TTL", answer.TTL)

    def time_to_live(self, answer: pb.LeaseTimeToLiveResponse, keys: bool) -> None:
        """Print every field."""
        self._header(answer.header)
        self._field("ID", answer.ID)
        self._field("TTL", answer.TTL)
        self._field("GrantedTTL", answer.grantedTTL)
        for key in answer.keys:
            self._field("Key", key)

    def leases(self, answer: pb.LeaseLeasesResponse) -> None:
        """Print the IDs."""
        self._header(answer.header)
        for lease in answer.leases:
            self._field("ID", lease.ID)

    def member_list(self, answer: pb.MemberListResponse) -> None:
        """Print every field of every member."""
        self._header(answer.header)
        for member in answer.members:
            self._field("ID", member.ID)
            self._field("Name", member.name)
            for url in member.peerURLs:
                self._field("PeerURL", url)
            for url in member.clientURLs:
                self._field("ClientURL", url)
            self._field("IsLearner", member.isLearner)
            self.write("")

    def endpoint_health(self, all_health: Sequence[Health]) -> None:
        """Print every field of every endpoint."""
        for health in all_health:
            self._field("Endpoint", health.endpoint)
            self._field("Health", health.healthy)
            self.write(f'"Took" : {duration(health.took_s)}', f'"Error" : {health.error}', "")

    def endpoint_status(self, statuses: Sequence[tuple[str, pb.StatusResponse]]) -> None:
        """Print every field of every endpoint."""
        for endpoint, status in statuses:
            self._header(status.header)
            self._field("Version", status.version)
            self._field("DBSize", status.dbSize)
            self._field("Leader", status.leader)
            self._field("IsLearner", status.isLearner)
            self._field("RaftIndex", status.raftIndex)
            self._field("RaftTerm", status.raftTerm)
            self._field("RaftAppliedIndex", status.raftAppliedIndex)
            errors = " ".join(quote(error.encode()) for error in status.errors)
            self.write(f'"Errors" : [{errors}]')
            self._field("Endpoint", endpoint)
            self.write("")

    def endpoint_hashkv(self, hashes: Sequence[tuple[str, pb.HashKVResponse]]) -> None:
        """Print every field of every endpoint."""
        for endpoint, answer in hashes:
            self._header(answer.header)
            self._field("Endpoint", endpoint)
            self._field("Hash", answer.hash)
            self.write("")

    def alarm(self, answer: pb.AlarmResponse) -> None:
        """Print every alarm."""
        self._header(answer.header)
        for alarm in answer.alarms:
            self._field("MemberID", alarm.memberID)
            self.write(f'"AlarmType" : {pb.AlarmType.Name(alarm.alarm)}', "")

    def snapshot_status(self, status: SnapshotStatus) -> None:
        """Print every field."""
        self._field("Hash", status.hash)
        self._field("Revision", status.revision)
        self._field("Keys", status.total_keys)
        self._field("Size", status.total_size_bytes)
