"""Settings: Go's flag syntax, the environment, the file, and every check with its message."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from consensus.errors import ConfigError
from consensus.tls import TlsFiles
from kvstore.config import ServerConfig, load
from kvstore.flags import FLAGS, Support
from kvstore.goflags import UsageError, parse_duration_s

URLS = ("--listen-client-urls", "http://127.0.0.1:1", "--advertise-client-urls", "http://a:1")

HTTPS_PEERS = (
    *("--listen-peer-urls", "https://localhost:2380"),
    *("--initial-advertise-peer-urls", "https://localhost:2380"),
)
HTTPS_CLIENTS = (
    *("--listen-client-urls", "https://127.0.0.1:1,http://127.0.0.1:2"),
    *("--advertise-client-urls", "https://a:1"),
)
CERTIFICATE = ("--peer-cert-file", "cert.pem", "--peer-key-file", "key.pem")


def config(*arguments: str, **environment: str) -> ServerConfig:
    return load(arguments, environment)


def test_defaults_are_etcds() -> None:
    found = config()
    assert found.name == "default"
    assert found.data_dir == Path("default.etcd")
    assert [url.text for url in found.client_urls] == ["http://localhost:2379"]
    assert found.advertise_client_urls == ("http://localhost:2379",)
    assert {name: [url.text for url in urls] for name, urls in found.initial_cluster.items()} == {
        "default": ["http://localhost:2380"]
    }
    assert (found.heartbeat_interval_ms, found.election_timeout_ms) == (100, 1000)
    assert (found.max_request_bytes, found.max_txn_ops) == (1_572_864, 128)
    assert found.quota_bytes == 2 * 1024**3
    assert found.snapshot_count == 10_000
    assert found.request_timeout_s == 7.0
    assert not found.auto_compaction.enabled
    assert found.engine == "native"
    assert found.warnings == ()


@pytest.mark.parametrize(
    "words",
    [("-name", "x"), ("--name", "x"), ("-name=x",), ("--name=x",), ("--name", "y", "--name=x")],
)
def test_every_spelling_of_a_flag(words: tuple[str, ...]) -> None:
    assert config(*words).name == "x"


@pytest.mark.parametrize(
    ("words", "on"),
    [
        (("--enable-grpc-gateway",), True),
        (("--enable-grpc-gateway=false",), False),
        (("-enable-grpc-gateway=F",), False),
        (("--enable-grpc-gateway=1",), True),
    ],
)
def test_booleans(words: tuple[str, ...], on: bool) -> None:
    assert config(*words).gateway is on


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--nmae", "x"), r"flag provided but not defined: --nmae; did you mean --name"),
        (("--zzzzzzzz",), r"not defined: --zzzzzzzz$"),
        (("--name",), "flag needs an argument: --name"),
        (("--enable-grpc-gateway", "false"), "'false' is not a valid flag"),
        (("start",), "'start' is not a valid flag"),
        (("---name", "x"), "bad flag syntax"),
        (("--=x",), "bad flag syntax"),
    ],
)
def test_wrong_command_lines(words: tuple[str, ...], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        config(*words)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--heartbeat-interval", "soon"), "invalid value 'soon' for --heartbeat-interval"),
        (("--snapshot-count=-1",), "not negative"),
        (("--enable-grpc-gateway=maybe",), "expected true or false"),
        (("--watch-progress-notify-interval", "10"), "expected a duration"),
        (("--watch-progress-notify-interval", "10ms"), "at least 100ms"),
        (("--heartbeat-interval", "0"), "--heartbeat-interval must be >0"),
        (("--election-timeout", "400"), r"election-timeout\[400ms\] should be at least as 5 times"),
        (("--election-timeout", "60000"), "too long, and should be set less than 50000ms"),
        (("--listen-client-urls", "http://127.0.0.1:1"), "--advertise-client-urls is required"),
        ((*URLS[2:], "--listen-client-urls", "127.0.0.1:1"), "scheme must be .*did you mean http"),
        ((*URLS[2:], "--listen-client-urls", "http://127.0.0.1"), 'form "host:port"'),
        ((*URLS[2:], "--listen-client-urls", "http://1.2.3.4:99999"), "is not a URL"),
        ((*URLS[2:], "--listen-client-urls", "http://foo:2379"), "expected IP in URL for binding"),
        ((*URLS[2:], "--listen-client-urls", "http://1.2.3.4:1/x"), "must not contain a path"),
        ((*URLS[2:], "--listen-client-urls", "https://1.2.3.4:1"), "must be provided for client"),
        ((*HTTPS_CLIENTS, "--cert-file", "x"), r"\(--cert-file, --key-file\) must be provided"),
        ((*URLS[2:], "--listen-client-urls", "unixs:///x"), "there is no TLS on unix sockets"),
        ((*URLS[2:], "--listen-client-urls", "http://1.2.3.4:1,http://1.2.3.4:1"), "given twice"),
        ((*URLS[2:], "--listen-client-urls", ","), "expected at least one URL"),
        (("--initial-cluster", "a=http://1.1.1.1:1"), "couldn't find local name 'default'"),
        (("--initial-cluster", "default"), "expected NAME=PEER_URL, got 'default'"),
        (
            ("--initial-cluster", "default=http://1.1.1.1:1"),
            "--initial-advertise-peer-urls is http://localhost:2380; they must be equal",
        ),
        (
            ("--initial-cluster", "default=http://localhost:2380,b=http://localhost:2380"),
            "belongs to both default and b",
        ),
        (("--initial-cluster-state", "old"), "unexpected value 'old'; one of new, existing"),
        (("--engine", "raft"), "one of native, pysyncobj, local"),
        (("--log-level", "loud"), "--log-level: unexpected value"),
        (("--max-txn-ops", "0"), "must be at least 1"),
        (("--auto-compaction-retention", "often"), "expected hours, or a duration"),
        (
            ("--auto-compaction-mode=revision", "--auto-compaction-retention=1h"),
            "expected a number of revisions",
        ),
        (("--cert-file", "x.pem"), "none of the client URLs is an https:// URL"),
        (("--auto-tls",), "--auto-tls is not supported: a certificate that anybody can make"),
        (("--tls-min-version", "TLS1.3"), "TLS 1.2 and 1.3 are spoken"),
        (("--peer-cert-file", "x.pem"), "http://localhost:2380 is not an https:// URL"),
        (("--peer-client-cert-auth",), "http://localhost:2380 is not an https:// URL"),
        (HTTPS_PEERS, "peer-key-file.* must be provided for peer url https://localhost:2380"),
        ((*HTTPS_PEERS, "--peer-cert-file", "x"), r"peer-cert-file, --peer-key-file\) must be"),
        ((*HTTPS_PEERS, *CERTIFICATE, "--engine", "pysyncobj"), "pysyncobj has no TLS between"),
        (
            (*HTTPS_PEERS, *CERTIFICATE, "--listen-peer-urls", "http://localhost:2380"),
            "all be https:// or none of them: https://localhost:2380 is, http://localhost:2380",
        ),
        (("--peer-cert-allowed-cn", "x"), "sign members only"),
        (("--discovery", "http://x"), "name the members with --initial-cluster"),
        (
            ("--force-new-cluster", "--engine", "local"),
            "--force-new-cluster: --engine local cannot change its members",
        ),
        (("--config-file", "/nonexistent.yml"), "cannot read /nonexistent.yml: No such file"),
    ],
)
def test_wrong_settings(words: tuple[str, ...], text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        config(*words)
    assert "\n" not in str(caught.value)


def test_environment_and_flags() -> None:
    found = config("--name", "flag", ETCD_NAME="env", ETCD_DATA_DIR="/d", ETCD_WHAT="x", HOME="/")
    assert (found.name, found.data_dir) == ("flag", Path("/d"))
    assert found.warnings == ("unrecognized environment variable ETCD_WHAT=x",)


def test_the_tutorials_flags() -> None:
    peers = ",".join(f"infra{n}=http://10.0.1.1{n}:2380" for n in range(3))
    found = config(
        *("--name", "infra0", "--initial-advertise-peer-urls", "http://10.0.1.10:2380"),
        *("--listen-peer-urls", "http://10.0.1.10:2380"),
        *("--listen-client-urls", "http://10.0.1.10:2379,http://127.0.0.1:2379"),
        *("--advertise-client-urls", "http://10.0.1.10:2379"),
        *("--initial-cluster", peers, "--initial-cluster-state", "new"),
    )
    assert list(found.initial_cluster) == ["infra0", "infra1", "infra2"]
    assert [url.address for url in found.client_urls] == ["10.0.1.10:2379", "127.0.0.1:2379"]


def test_every_flag_is_used_ignored_with_a_warning_or_refused_with_a_reason() -> None:
    samples = {"bool": "true", "string": "x", "int": "7", "uint": "7", "duration": "7s"}
    counted = dict.fromkeys(Support, 0)
    for name, flag in FLAGS.items():
        counted[flag.support] += 1
        if flag.support is Support.USED:
            continue
        assert flag.reason
        value = "false" if flag.default is True else samples[flag.kind]
        if flag.support is Support.NO_EFFECT:
            (warning,) = config(f"--{name}={value}").warnings
            assert warning == f"--{name} has no effect: {flag.reason}"
        else:
            with pytest.raises(ConfigError, match=f"^--{name} is not supported: "):
                config(f"--{name}={value}")
        default = str(flag.default).lower() if flag.kind == "bool" else None
        if default is not None:
            assert config(f"--{name}={default}").warnings == (), "its default changes nothing"
    assert all(counted.values())


def test_config_file(tmp_path: Path) -> None:
    path = tmp_path / "etcd.yml"
    path.write_text(
        "name: filed\n"
        "data-dir: /somewhere\n"
        "listen-client-urls: http://127.0.0.1:5,http://127.0.0.1:6\n"
        "advertise-client-urls: http://127.0.0.1:5\n"
        "election-timeout: 2000\n"
        "enable-grpc-gateway: false\n"
        "auto-compaction-mode: revision\n"
        'auto-compaction-retention: "1000"\n'
        "watch-progress-notify-interval: 2000000000\n"
        "client-transport-security:\n  cert-file: ''\n  auto-tls: false\n"
    )
    found = config("--config-file", str(path), "--name", "flag", ETCD_DATA_DIR="/env")
    assert (found.name, found.data_dir, found.gateway) == ("filed", Path("/somewhere"), False)
    assert len(found.client_urls) == 2
    assert found.auto_compaction.keep_revisions == 1000
    assert found.progress_notify_interval_s == 2.0
    assert found.warnings == (
        "--config-file is given, so these flags and variables are ignored: data-dir, name",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "is not valid YAML"),
        ("- name", "must hold `name: value` lines"),
        ("nmae: x", "unknown setting nmae; did you mean --name"),
        ("peer-transport-security: {auto-tls: true}", "--peer-auto-tls is not supported"),
        ("peer-transport-security: {cret-file: x}", "unknown setting cret-file"),
        ("peer-transport-security: x.pem", "must hold `name: value` lines"),
        ("name: {a: b}", "name must be one value"),
    ],
)
def test_wrong_config_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "etcd.yml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        config("--config-file", str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("retention", "seconds"),
    [("1", 3600), ("30m", 1800), ("1h30m", 5400), ("0", 0), ("72h", 259_200)],
)
def test_periodic_retention(retention: str, seconds: float) -> None:
    assert config("--auto-compaction-retention", retention).auto_compaction.keep_s == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("300ms", 0.3), ("1.5h", 5400), ("1h30m10s", 5410), ("0", 0), ("-2s", -2), ("5us", 5e-6)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "10", "s", "1x", "1h 2m", "h1"])
def test_wrong_durations(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration_s(text)


def test_quota() -> None:
    assert config("--quota-backend-bytes=-1").quota_bytes == -1
    assert config("--quota-backend-bytes=53248").quota_bytes == 53_248
    assert "advised" in config("--quota-backend-bytes=9000000000").warnings[0]


def test_certificates_for_peers(tmp_path: Path) -> None:
    assert config().peer_tls.empty
    restored = load(("--initial-advertise-peer-urls", "https://localhost:2380"), {}, offline=True)
    assert restored.initial_cluster["default"][0].scheme == "https"
    by_flags = config(*HTTPS_PEERS, *CERTIFICATE, "--peer-trusted-ca-file", "ca.pem")
    path = tmp_path / "etcd.yml"
    path.write_text(
        "listen-peer-urls: https://localhost:2380\n"
        "initial-advertise-peer-urls: https://localhost:2380\n"
        "client-transport-security:\n"
        "peer-transport-security:\n"
        "  cert-file: cert.pem\n"
        "  key-file: key.pem\n"
        "  trusted-ca-file: ca.pem\n"
        "  client-cert-auth: false\n"
        "  auto-tls: false\n"
    )
    assert config("--config-file", str(path)).peer_tls == by_flags.peer_tls
    by_environment = config(
        *HTTPS_PEERS,
        ETCD_PEER_CERT_FILE="cert.pem",
        ETCD_PEER_KEY_FILE="key.pem",
        ETCD_PEER_TRUSTED_CA_FILE="ca.pem",
        ETCD_PEER_CLIENT_CERT_AUTH="true",
    )
    assert by_environment.peer_tls == attrs.evolve(by_flags.peer_tls, require_client_cert=True)
    assert by_flags.peer_tls == TlsFiles(
        cert=Path("cert.pem"),
        key=Path("key.pem"),
        trusted_ca=Path("ca.pem"),
        flags=("--peer-cert-file", "--peer-key-file", "--peer-trusted-ca-file"),
    )


def test_certificates_for_clients(tmp_path: Path) -> None:
    assert config().client_tls.empty
    found = config(*HTTPS_CLIENTS, "--cert-file=c", "--key-file=k", ETCD_CLIENT_CERT_AUTH="true")
    files = TlsFiles(cert=Path("c"), key=Path("k"), require_client_cert=True)
    assert found.client_tls == files
    assert [url.scheme for url in found.client_urls] == ["https", "http"]
    path = tmp_path / "etcd.yml"
    path.write_text(
        "listen-client-urls: https://127.0.0.1:1\n"
        "advertise-client-urls: https://a:1\n"
        "client-transport-security: {cert-file: c, key-file: k, client-cert-auth: true}\n"
    )
    assert config("--config-file", str(path)).client_tls == files
