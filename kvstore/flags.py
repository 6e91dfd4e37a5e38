"""Every flag of etcd 3.6 (and the older ones that are still in use), and what it means here.

A flag is supported, or accepted without effect (with a warning that says why that is safe), or
refused (where to ignore it would break what its user counts on). No flag of etcd is unknown.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final

import attrs

from kvstore.goflags import parse_bool, parse_duration_s


class Support(enum.Enum):
    """What becomes of a flag."""

    USED = "used"
    NO_EFFECT = "no effect"
    REFUSED = "refused"


@attrs.frozen(slots=True)
class Flag:
    """One flag.

    Args:
        name: without dashes.
        default: parsed value when it is not given.
        kind: "string", "bool", "int", "uint" or "duration"; durations are in seconds.
        group: the heading in the help text.
        help: one line for the user.
        support: see ``Support``.
        reason: for NO_EFFECT and REFUSED, why.
    """

    name: str
    default: Any
    kind: str
    group: str
    help: str = ""
    support: Support = Support.USED
    reason: str = ""

    def parse(self, text: str) -> Any:
        """Return ``text`` as a value of this flag's kind.

        Raises:
            ValueError: it is not one; the text says what was expected.
        """
        return PARSERS[self.kind](text)


def _parse_int(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise ValueError("expected a whole number") from None


def _parse_uint(text: str) -> int:
    value = _parse_int(text)
    if value < 0:
        raise ValueError("expected a whole number that is not negative")
    return value


PARSERS: Final[dict[str, Callable[[str], Any]]] = {
    "string": str,
    "bool": parse_bool,
    "int": _parse_int,
    "uint": _parse_uint,
    "duration": parse_duration_s,
}

MEMBER = "Member"
CLUSTERING = "Clustering"
SECURITY = "Security"
LOGGING = "Logging and monitoring"
RAFTYARD = "Raftyard's own"

USED: Final = (
    Flag("name", "default", "string", MEMBER, "this member's name, unique in its cluster"),
    Flag("data-dir", "", "string", MEMBER, "directory for all data (default NAME.etcd)"),
    Flag(
        "listen-client-urls",
        "http://localhost:2379",
        "string",
        MEMBER,
        "where to serve clients: gRPC, JSON and HTTP on one port; several with commas",
    ),
    Flag(
        "listen-peer-urls",
        "http://localhost:2380",
        "string",
        MEMBER,
        "where to listen for the other members",
    ),
    Flag("snapshot-count", 10_000, "uint", MEMBER, "commands between two snapshots"),
    Flag("heartbeat-interval", 100, "uint", MEMBER, "leader's heartbeat, in milliseconds"),
    Flag("election-timeout", 1000, "uint", MEMBER, "time without leader, in milliseconds"),
    Flag(
        "quota-backend-bytes",
        0,
        "int",
        MEMBER,
        "raise the NOSPACE alarm above this size (0: 2 GiB, negative: no limit)",
    ),
    Flag("max-txn-ops", 128, "uint", MEMBER, "operations that one transaction may have"),
    Flag("max-request-bytes", 1_572_864, "uint", MEMBER, "greatest client request, in bytes"),
    Flag(
        "max-concurrent-streams",
        2**32 - 1,
        "uint",
        MEMBER,
        "streams that one client connection may have open",
    ),
    Flag(
        "grpc-keepalive-interval",
        7200.0,
        "duration",
        MEMBER,
        "a client that is silent for so long is asked whether it is there; 0s: never",
    ),
    Flag(
        "grpc-keepalive-timeout",
        20.0,
        "duration",
        MEMBER,
        "a client that does not answer for so long is cut off",
    ),
    Flag("enable-grpc-gateway", True, "bool", MEMBER, "serve the JSON gateway under /v3/"),
    Flag("config-file", "", "string", MEMBER, "YAML file; then flags and environment are ignored"),
    Flag(
        "initial-advertise-peer-urls",
        "http://localhost:2380",
        "string",
        CLUSTERING,
        "where the other members reach this one",
    ),
    Flag(
        "advertise-client-urls",
        "http://localhost:2379",
        "string",
        CLUSTERING,
        "where clients reach this member; needed when --listen-client-urls is given",
    ),
    Flag(
        "initial-cluster",
        "",
        "string",
        CLUSTERING,
        "all members: NAME=PEER_URL,NAME=PEER_URL,... (default: this one alone)",
    ),
    Flag(
        "initial-cluster-state",
        "new",
        "string",
        CLUSTERING,
        "new, or existing for a member that joins a running cluster (see kvctl member add)",
    ),
    Flag(
        "initial-cluster-token",
        "etcd-cluster",
        "string",
        CLUSTERING,
        "keeps clusters with the same URLs apart: part of the cluster's ID",
    ),
    Flag(
        "auto-compaction-mode",
        "periodic",
        "string",
        CLUSTERING,
        "periodic (retention is a time) or revision (retention is a number of revisions)",
    ),
    Flag(
        "auto-compaction-retention",
        "0",
        "string",
        CLUSTERING,
        'history to keep: "1" or "1h" (periodic), "1000" (revision); 0 keeps all',
    ),
    Flag(
        "strict-reconfig-check",
        True,
        "bool",
        CLUSTERING,
        "refuse changes of members that could cost the cluster its majority",
    ),
    Flag("pre-vote", True, "bool", CLUSTERING, "ask before an election whether it can be won"),
    Flag("max-learners", 1, "uint", CLUSTERING, "learners that the cluster may have at once"),
    Flag("experimental-max-learners", 1, "uint", CLUSTERING, ""),
    Flag(
        "force-new-cluster",
        False,
        "bool",
        CLUSTERING,
        "go on as the only member, with the data that are there: after a majority was lost",
    ),
    Flag("cors", "*", "string", SECURITY, "origins that browsers may call from, or *"),
    Flag("host-whitelist", "*", "string", SECURITY, "HTTP host names to answer to, or *"),
    Flag("log-level", "info", "string", LOGGING, "debug, info, warn, error, panic or fatal"),
    Flag("log-format", "json", "string", LOGGING, "json or console"),
    Flag(
        "log-outputs",
        "default",
        "string",
        LOGGING,
        "stdout, stderr, default (stderr) or files; several with commas",
    ),
    Flag(
        "listen-metrics-urls",
        "",
        "string",
        LOGGING,
        "more places for /metrics and /health, without the data",
    ),
    Flag("metrics", "basic", "string", LOGGING, "basic or extensive (the same page today)"),
    Flag(
        "watch-progress-notify-interval",
        600.0,
        "duration",
        LOGGING,
        "how often an idle watch that asked for it hears the revision",
    ),
    Flag("experimental-watch-progress-notify-interval", 600.0, "duration", LOGGING, ""),
    Flag("version", False, "bool", RAFTYARD, "print the version and exit"),
    Flag("help", False, "bool", RAFTYARD, "print this text and exit"),
    Flag("h", False, "bool", RAFTYARD, ""),
    Flag(
        "engine",
        "native",
        "string",
        RAFTYARD,
        "how to replicate: native (our own Raft, on disk before anything is acknowledged); "
        "pysyncobj (see the README for what it can lose); "
        "local (one member, in memory: nothing survives a stop)",
    ),
    Flag("cert-file", "", "string", SECURITY, "certificate that clients see (https:// URLs)"),
    Flag("key-file", "", "string", SECURITY, "private key of --cert-file"),
    Flag("trusted-ca-file", "", "string", SECURITY, "certificates that sign the clients'"),
    Flag(
        "client-cert-auth",
        False,
        "bool",
        SECURITY,
        "refuse clients without a trusted certificate (implied by --trusted-ca-file)",
    ),
    Flag("peer-cert-file", "", "string", SECURITY, "certificate of this member (https:// peers)"),
    Flag("peer-key-file", "", "string", SECURITY, "private key of --peer-cert-file"),
    Flag("peer-trusted-ca-file", "", "string", SECURITY, "certificates that sign the members'"),
    Flag(
        "peer-client-cert-auth",
        False,
        "bool",
        SECURITY,
        "refuse members without a trusted certificate (implied by --peer-trusted-ca-file)",
    ),
    Flag(
        "peer-password-file",
        "",
        "string",
        RAFTYARD,
        "file with the password that encrypts the peer links; needed beyond loopback",
    ),
)


def _no_effect(group: str, reason: str, **flags: tuple[str, Any]) -> tuple[Flag, ...]:
    return tuple(
        Flag(name.replace("_", "-"), default, kind, group, "", Support.NO_EFFECT, reason)
        for name, (kind, default) in flags.items()
    )


def _refused(group: str, reason: str, **flags: tuple[str, Any]) -> tuple[Flag, ...]:
    return tuple(
        Flag(name.replace("_", "-"), default, kind, group, "", Support.REFUSED, reason)
        for name, (kind, default) in flags.items()
    )


STRING: Final = ("string", "")
FALSE: Final = ("bool", False)
TRUE: Final = ("bool", True)

OWN_STORE: Final = "it tunes a part of etcd's storage that Raftyard does not have"
NOT_BUILT: Final = "Raftyard does not have this yet"

OTHERS: Final = (
    *_no_effect(
        MEMBER,
        OWN_STORE,
        wal_dir=STRING,
        max_snapshots=("uint", 5),
        max_wals=("uint", 5),
        backend_batch_interval=("duration", 0.0),
        backend_batch_limit=("int", 0),
        backend_bbolt_freelist_type=("string", "map"),
        experimental_backend_bbolt_freelist_type=STRING,
        snapshot_catchup_entries=("uint", 5000),
        experimental_snapshot_catchup_entries=("uint", 5000),
        bootstrap_defrag_threshold_megabytes=("uint", 0),
        experimental_bootstrap_defrag_threshold_megabytes=("uint", 0),
        compaction_batch_limit=("int", 1000),
        experimental_compaction_batch_limit=("int", 1000),
        compaction_sleep_interval=("duration", 0.01),
        experimental_compaction_sleep_interval=("duration", 0.01),
        memory_mlock=FALSE,
        experimental_memory_mlock=FALSE,
    ),
    *_no_effect(
        MEMBER,
        "connections here are never closed for pinging often",
        grpc_keepalive_min_time=("duration", 5.0),
    ),
    *_no_effect(
        MEMBER,
        "the engine decides it",
        initial_election_tick_advance=TRUE,
        feature_gates=STRING,
        socket_reuse_address=FALSE,
        socket_reuse_port=FALSE,
    ),
    *_no_effect(
        CLUSTERING,
        "there is no v2 store and no proxy here",
        v2_deprecation=("string", "not-yet"),
        proxy=("string", "off"),
        proxy_failure_wait=("uint", 5000),
        proxy_refresh_interval=("uint", 30000),
        proxy_dial_timeout=("uint", 1000),
        proxy_write_timeout=("uint", 5000),
        proxy_read_timeout=("uint", 0),
        discovery_proxy=STRING,
        discovery_fallback=("string", "proxy"),
    ),
    *_no_effect(
        LOGGING,
        "logs here come from structlog and always carry their level and time",
        logger=("string", "zap"),
        debug=FALSE,
        log_package_levels=STRING,
        log_output=STRING,
        enable_log_rotation=FALSE,
        log_rotation_config_json=STRING,
    ),
    *_no_effect(
        LOGGING,
        NOT_BUILT,
        enable_pprof=FALSE,
        warning_apply_duration=("duration", 0.1),
        experimental_warning_apply_duration=("duration", 0.1),
        warning_unary_request_duration=("duration", 0.3),
        experimental_warning_unary_request_duration=("duration", 0.3),
        enable_distributed_tracing=FALSE,
        experimental_enable_distributed_tracing=FALSE,
        distributed_tracing_address=STRING,
        experimental_distributed_tracing_address=STRING,
        distributed_tracing_service_name=STRING,
        experimental_distributed_tracing_service_name=STRING,
        distributed_tracing_instance_id=STRING,
        experimental_distributed_tracing_instance_id=STRING,
        distributed_tracing_sampling_rate=("int", 0),
        experimental_distributed_tracing_sampling_rate=("int", 0),
        corrupt_check_time=("duration", 0.0),
        experimental_corrupt_check_time=("duration", 0.0),
        compact_hash_check_time=("duration", 60.0),
        experimental_compact_hash_check_time=("duration", 60.0),
        compact_hash_check_enabled=FALSE,
        experimental_compact_hash_check_enabled=FALSE,
        initial_corrupt_check=FALSE,
        experimental_initial_corrupt_check=FALSE,
        experimental_enable_lease_checkpoint=FALSE,
        experimental_enable_lease_checkpoint_persist=FALSE,
        experimental_txn_mode_write_with_shared_buffer=TRUE,
        experimental_stop_grpc_service_on_defrag=FALSE,
        downgrade_check_time=("duration", 5.0),
        experimental_downgrade_check_time=("duration", 5.0),
    ),
    *_no_effect(
        SECURITY,
        "authentication is not built yet: Auth calls answer Unimplemented",
        auth_token=("string", "simple"),
        auth_token_ttl=("uint", 300),
        bcrypt_cost=("uint", 10),
        self_signed_cert_validity=("uint", 1),
    ),
    *_no_effect(
        SECURITY,
        "the JSON gateway is a part of the server here and dials nobody",
        client_cert_file=STRING,
        client_key_file=STRING,
    ),
    *_refused(
        SECURITY,
        "a certificate that anybody can make proves nothing; make an authority and a certificate "
        "(--cert-file, --key-file)",
        auto_tls=FALSE,
    ),
    *_refused(
        SECURITY,
        "who has a certificate that --trusted-ca-file signed is let in: sign clients only",
        ca_file=STRING,
        client_crl_file=STRING,
        client_cert_allowed_hostname=STRING,
    ),
    *_refused(
        SECURITY,
        "TLS 1.2 and 1.3 are spoken, with the ciphers that OpenSSL's own settings allow",
        cipher_suites=STRING,
        tls_min_version=STRING,
        tls_max_version=STRING,
    ),
    *_refused(
        SECURITY,
        "members have one certificate, for what they dial and what they listen on: give it with "
        "--peer-cert-file and --peer-key-file",
        peer_client_cert_file=STRING,
        peer_client_key_file=STRING,
    ),
    *_refused(
        SECURITY,
        "a certificate that anybody can make proves nothing; make an authority and a certificate "
        "for each member (--peer-trusted-ca-file, --peer-cert-file, --peer-key-file)",
        peer_auto_tls=FALSE,
    ),
    *_refused(
        SECURITY,
        "who has a certificate that --peer-trusted-ca-file signed is trusted: sign members only",
        peer_ca_file=STRING,
        peer_cert_allowed_cn=STRING,
        peer_cert_allowed_hostname=STRING,
        peer_crl_file=STRING,
    ),
    *_no_effect(
        SECURITY,
        "the names in a dialling member's certificate are not compared with its address",
        peer_skip_client_san_verification=FALSE,
        experimental_peer_skip_client_san_verification=FALSE,
    ),
    *_refused(
        CLUSTERING,
        "discovery is not built yet; name the members with --initial-cluster",
        discovery=STRING,
        discovery_srv=STRING,
        discovery_srv_name=STRING,
        discovery_token=STRING,
        discovery_endpoints=STRING,
        discovery_dial_timeout=("duration", 2.0),
        discovery_request_timeout=("duration", 5.0),
        discovery_keepalive_time=("duration", 2.0),
        discovery_keepalive_timeout=("duration", 6.0),
        discovery_insecure_transport=TRUE,
        discovery_insecure_skip_tls_verify=FALSE,
        discovery_cert=STRING,
        discovery_key=STRING,
        discovery_cacert=STRING,
        discovery_user=STRING,
        discovery_password=STRING,
    ),
    *_no_effect(
        CLUSTERING,
        "the server has no v2 API: v2 clients will not work, but `ETCDCTL_API=2 kvctl` speaks "
        "etcdctl v2's commands to the v3 store",
        enable_v2=FALSE,
        experimental_enable_v2v3=STRING,
    ),
    *_no_effect(CLUSTERING, "the engine decides what it syncs", unsafe_no_fsync=FALSE),
    *_refused(
        MEMBER,
        "one port serves gRPC and HTTP here, and they cannot be split yet",
        listen_client_http_urls=STRING,
    ),
)

FLAGS: Final[dict[str, Flag]] = {flag.name: flag for flag in (*USED, *OTHERS)}
KNOWN: Final[dict[str, bool]] = {name: flag.kind == "bool" for name, flag in FLAGS.items()}
