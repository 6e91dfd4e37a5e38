"""The format with frames, for answers that are rows."""

from __future__ import annotations

from collections.abc import Sequence

from kvstore.cli.kvctl.golang import duration
from kvstore.cli.kvctl.printers import Health, Printer, SnapshotStatus
from kvstore.cli.kvctl.printers.simple import member_row, snapshot_row, status_row
from kvstore.pb import etcdserverpb_pb2 as pb


def framed(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table's lines: titles centred in capitals, cells flush right."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    titles = []
    for title, width in zip(header, widths, strict=True):
        left = (width - len(title)) // 2
        titles.append(" " * left + title.upper() + " " * (width - len(title) - left))
    lines = [rule, "| " + " | ".join(titles) + " |", rule]
    for row in rows:
        cells = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, rule] if rows else lines


class TablePrinter(Printer):
    """Rows in frames; only answers that are rows have this form."""

    name = "table"

    def member_list(self, answer: pb.MemberListResponse) -> None:
        """Print a row for each member."""
        header = ["ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"]
        self.write(*framed(header, [member_row(member) for member in answer.members]))

    def endpoint_health(self, all_health: Sequence[Health]) -> None:
        """Print a row for each endpoint."""
        rows = [
            [each.endpoint, str(each.healthy).lower(), duration(each.took_s), each.error]
            for each in all_health
        ]
        self.write(*framed(["endpoint", "health", "took", "error"], rows))

    def endpoint_status(self, statuses: Sequence[tuple[str, pb.StatusResponse]]) -> None:
        """Print a row for each endpoint."""
        header = [
            "endpoint",
            "ID",
            "version",
            "db size",
            "is leader",
            "is learner",
            "raft term",
            "raft index",
            "raft applied index",
            "errors",
        ]
        self.write(*framed(header, [status_row(*each) for each in statuses]))

    def endpoint_hashkv(self, hashes: Sequence[tuple[str, pb.HashKVResponse]]) -> None:
        """Print a row for each endpoint."""
        rows = [[endpoint, str(answer.hash)] for endpoint, answer in hashes]
        self.write(*framed(["endpoint", "hash"], rows))

    def snapshot_status(self, status: SnapshotStatus) -> None:
        """Print one row."""
        header = ["hash", "revision", "total keys", "total size"]
        self.write(*framed(header, [snapshot_row(status)]))
