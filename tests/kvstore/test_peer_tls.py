"""Three server processes over mutual TLS, and one whose certificate nobody here has signed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kvstore.client import Client, EtcdError
from tests.certificates import Authority
from tests.clusters import Cluster, Member, Program, healthy, tail
from tests.kvstore.kvctl.running import kvctl
from tests.waiting import wait_until_sync

pytestmark = pytest.mark.xdist_group("peer tls")

PATIENCE_S = 60.0
NO_CONNECTION = "no TLS connection to a peer"


class Secure(Cluster):
    """A cluster whose members show each other certificates.

    Args:
        directory: where everything goes.
        size: how many members.
    """

    def __init__(self, directory: Path, size: int = 3) -> None:
        super().__init__(Program.kvstore(), directory, size)
        self.authority = Authority(directory / "trusted", "trusted")
        self.foreign = Authority(directory / "foreign", "foreign")
        self.strangers: set[str] = set()
        self.plain: set[str] = set()

    def command(self, member: Member) -> list[str]:
        """Turn the peers' URLs into https:// ones, and name the member's files."""
        words = super().command(member)
        if member.name in self.plain:
            return words
        for other in self.members:
            plain, secure = f"http://{other.peer}", f"https://{other.peer}"
            words = [word.replace(plain, secure) for word in words]
        signs = self.foreign if member.name in self.strangers else self.authority
        cert, key = signs.sign(member.name)
        return [
            *words,
            *("--peer-cert-file", str(cert), "--peer-key-file", str(key)),
            *("--peer-trusted-ca-file", str(self.authority.file), "--peer-client-cert-auth"),
        ]


def lines(member: Member, *words: str) -> list[str]:
    """Lines of a member's log that have all these words."""
    text = member.log.read_text(errors="replace")
    return [line for line in text.splitlines() if all(word in line for word in words)]


def eventually(condition: Callable[[], bool], cluster: Cluster, what: str) -> None:
    try:
        wait_until_sync(condition, PATIENCE_S, what)
    except AssertionError as error:
        logs = "\n".join(f"{each.name}:\n{tail(each)}" for each in cluster.members)
        raise AssertionError(f"{error}\n{logs}") from None


def put_through(cluster: Cluster, client: Client, key: str) -> None:
    """Have a put acknowledged, however often it must be tried."""

    def done() -> bool:
        try:
            client.put(key, key)
        except EtcdError:
            return False
        return True

    eventually(done, cluster, f"a put of {key}")


def test_members_trust_only_whom_their_authority_signed(tmp_path: Path) -> None:
    cluster = Secure(tmp_path)
    first, second, stranger = cluster.members
    cluster.strangers.add(stranger.name)
    try:
        for member in cluster.members:
            cluster.launch(member)
        with Client([first.client, second.client], timeout_s=10.0) as client:
            eventually(
                lambda: healthy(first.client) and healthy(second.client), cluster, "two are enough"
            )
            put_through(cluster, client, "a")
            for member in (first, second):
                eventually(
                    lambda member=member: bool(  # type: ignore[misc]
                        lines(member, NO_CONNECTION, stranger.peer, "certificate is not accepted")
                    ),
                    cluster,
                    f"{member.name} says why it does not talk to {stranger.name}",
                )
                eventually(
                    lambda member=member: bool(lines(stranger, NO_CONNECTION, member.peer)),  # type: ignore[misc]
                    cluster,
                    f"{stranger.name} says that {member.name} does not talk to it",
                )
            assert not healthy(stranger.client)
            for member in (first, second):
                told = lines(member, NO_CONNECTION, stranger.peer)
                assert len(told) == 1, f"it says it once: {told}"
            cluster.kill(stranger)
            cluster.strangers.clear()
            cluster.launch(stranger)
            eventually(lambda: healthy(stranger.client), cluster, "it is let in")
            with Client(stranger.client, timeout_s=10.0) as newcomer:
                assert newcomer.get("a").value == b"a"
            put_through(cluster, client, "b")
    finally:
        cluster.stop()
    for member in cluster.members:
        assert "Traceback" not in member.log.read_text(errors="replace"), tail(member)


def test_a_member_that_began_without_tls_goes_on_with_it(tmp_path: Path) -> None:
    cluster = Secure(tmp_path, size=1)
    (member,) = cluster.members
    cluster.plain.add(member.name)
    try:
        for secure in (False, True):
            if secure:
                cluster.kill(member)
                cluster.plain.clear()
                cluster.flags = ("--initial-cluster-state", "existing")
            cluster.launch(member)
            eventually(lambda: healthy(member.client), cluster, "it serves")
            with Client(member.client, timeout_s=10.0) as client:
                if secure:
                    assert client.get("a").value == b"a"
                put_through(cluster, client, "a")
        there = {"ETCDCTL_ENDPOINTS": member.client}
        id = kvctl(("member", "list"), there).stdout.split(b",")[0].decode()
        secure_url = f"--peer-urls=https://{member.peer}"
        assert kvctl(("member", "update", id, secure_url), there).status == 0
        assert f"https://{member.peer}".encode() in kvctl(("member", "list"), there).stdout
    finally:
        cluster.stop()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda cert, key: key.unlink(), "--peer-key-file: cannot read"),
        (lambda cert, key: cert.write_text("x"), "--peer-cert-file, --peer-key-file: "),
    ],
    ids=["no key", "no certificate"],
)
def test_a_wrong_file_ends_the_start_in_one_line(
    tmp_path: Path, damage: Callable[[Path, Path], None], message: str
) -> None:
    cluster = Secure(tmp_path)
    member = cluster.members[0]
    command = cluster.command(member)
    names = (command[command.index(f"--peer-{each}-file") + 1] for each in ("cert", "key"))
    damage(*map(Path, names))
    cluster.command = lambda _: command  # type: ignore[method-assign]
    try:
        cluster.launch(member)
        assert member.process is not None
        assert member.process.wait(PATIENCE_S) != 0
    finally:
        cluster.stop()
    assert len(lines(member, message)) == 1
    assert "Traceback" not in member.log.read_text()
