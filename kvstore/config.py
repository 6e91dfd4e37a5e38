"""The server's settings: from flags, the environment or a file, checked before anything starts.

The three sources are etcd's: flags win over ``ETCD_*`` variables, and with ``--config-file`` both
are ignored (with a warning where one was given). The checks are etcd's too; each error names the
flag, the value, and what would be right.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from consensus.errors import ConfigError
from consensus.tls import TlsFiles, check_peer_urls
from kvstore.flags import FLAGS, KNOWN, Support
from kvstore.goflags import UsageError, parse_duration_s, parse_flags, unknown_flag
from kvstore.urls import Url, check_can_bind, parse_urls

ENGINES: Final = ("native", "pysyncobj", "local")
ELECTION_TIMEOUT_MAX_MS: Final = 50_000
ELECTION_PER_HEARTBEAT: Final = 5
QUOTA_DEFAULT_BYTES: Final = 2 * 1024**3
QUOTA_ADVISED_MAX_BYTES: Final = 8 * 1024**3
PROGRESS_INTERVAL_MIN_S: Final = 0.1
LOG_LEVELS: Final = ("debug", "info", "warn", "error", "dpanic", "panic", "fatal")
ENVIRONMENT_PREFIX: Final = "ETCD_"
SECURITY_SECTIONS: Final = {"client-transport-security": "", "peer-transport-security": "peer-"}
"""Sections of etcd's file, and how the flags begin that their settings stand for."""
ENVIRONMENT_OTHERS: Final = frozenset({"ETCD_UNSUPPORTED_ARCH"})


@attrs.frozen(slots=True)
class AutoCompaction:
    """What history to keep: ``mode`` is "periodic" (``keep_s`` seconds) or "revision"
    (``keep_revisions``). Both are 0 where nothing is compacted by itself."""

    mode: str = "periodic"
    keep_s: float = 0.0
    keep_revisions: int = 0

    @property
    def enabled(self) -> bool:
        """Whether anything is compacted by itself."""
        return self.keep_s > 0 or self.keep_revisions > 0


@attrs.frozen(slots=True)
class ServerConfig:
    """All that a server needs to know to start. Names end on their unit."""

    name: str
    data_dir: Path
    client_urls: tuple[Url, ...]
    peer_urls: tuple[Url, ...]
    metrics_urls: tuple[Url, ...]
    advertise_client_urls: tuple[str, ...]
    initial_cluster: Mapping[str, tuple[Url, ...]]
    joins: bool
    """Whether the cluster is there already: ``--initial-cluster-state existing``."""
    force_new_cluster: bool
    cluster_token: str
    engine: str
    peer_password_file: Path | None
    client_tls: TlsFiles
    peer_tls: TlsFiles
    heartbeat_interval_ms: int
    election_timeout_ms: int
    snapshot_count: int
    pre_vote: bool
    strict_reconfig_check: bool
    learners_max: int
    quota_bytes: int
    max_txn_ops: int
    max_request_bytes: int
    max_concurrent_streams: int
    keepalive_interval_s: float
    keepalive_timeout_s: float
    gateway: bool
    cors: frozenset[str]
    host_whitelist: frozenset[str]
    auto_compaction: AutoCompaction
    progress_notify_interval_s: float
    log_level: str
    log_format: str
    log_outputs: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def request_timeout_s(self) -> float:
        """How long a request may wait for the cluster: etcd's 5 s and two election timeouts."""
        return 5.0 + 2 * self.election_timeout_ms / 1000


@attrs.frozen(slots=True)
class Given:
    """The settings that the user gave, parsed, by flag name; and what to tell about them."""

    values: Mapping[str, Any]
    warnings: tuple[str, ...]

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def __getitem__(self, name: str) -> Any:
        return self.values[name] if name in self.values else FLAGS[name].default


def gather(arguments: Sequence[str], environment: Mapping[str, str]) -> Given:
    """Collect settings from the command line, the environment and the file.

    Raises:
        UsageError: the command line is wrong.
        ConfigError: a value is wrong, or the file cannot be read.
    """
    parsed = parse_flags(arguments, KNOWN)
    if parsed.rest:
        raise UsageError(
            f"{parsed.rest[0]!r} is not a valid flag (flags begin with a dash; a boolean takes its "
            "value with `=`)"
        )
    warnings: list[str] = []
    variables = _from_environment(environment, warnings)
    path = parsed.flags.get("config-file") or variables.get("config-file")
    if path:
        others = sorted((parsed.flags.keys() | variables.keys()) - {"config-file"})
        if others:
            warnings.append(
                "--config-file is given, so these flags and variables are ignored: "
                + ", ".join(others)
            )
        texts = _from_file(Path(path))
    else:
        texts = dict(variables) | dict(parsed.flags)
    return _parse_all(texts, warnings)


def _from_environment(environment: Mapping[str, str], warnings: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for variable, text in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in ENVIRONMENT_OTHERS:
            continue
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower().replace("_", "-")
        if name in FLAGS:
            if text:
                found[name] = text
        else:
            warnings.append(f"unrecognized environment variable {variable}={text}")
    return found


def _from_file(path: Path) -> dict[str, str]:
    import yaml  # few servers have such a file; the others start faster without

    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"--config-file: cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        at = " ".join(str(error).split())
        raise ConfigError(f"--config-file: {path} is not valid YAML: {at}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"--config-file: {path} must hold `name: value` lines")
    texts: dict[str, str] = {}
    for name, value in document.items():
        if name in SECURITY_SECTIONS:
            texts |= _from_section(path, name, value)
            continue
        if name not in FLAGS:
            message = unknown_flag(str(name), KNOWN).partition(";")
            raise ConfigError(
                f"--config-file: {path}: unknown setting {name}{''.join(message[1:])}"
            )
        if isinstance(value, bool):
            texts[name] = "true" if value else "false"
        elif isinstance(value, list):
            texts[name] = ",".join(str(part) for part in value)
        elif isinstance(value, dict):
            raise ConfigError(f"--config-file: {path}: {name} must be one value")
        elif value is not None:
            # etcd's file gives durations as whole nanoseconds where the flag has a unit.
            duration = FLAGS[name].kind == "duration" and isinstance(value, int)
            texts[name] = f"{value}ns" if duration else str(value)
    return texts


def _from_section(path: Path, section: str, value: Any) -> dict[str, str]:
    """Read one of the two sections of etcd's file that name certificates."""
    if value is None:
        return {}
    where = f"--config-file: {path}: {section}"
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must hold `name: value` lines")
    texts = {}
    for name, setting in value.items():
        flag = f"{SECURITY_SECTIONS[section]}{name}"
        if flag not in FLAGS:
            raise ConfigError(f"{where}: unknown setting {name}")
        if setting not in (None, "", False):
            texts[flag] = "true" if setting is True else str(setting)
    return texts


def _parse_all(texts: Mapping[str, str], warnings: list[str]) -> Given:
    values: dict[str, Any] = {}
    for name, text in texts.items():
        flag = FLAGS[name]
        try:
            value = flag.parse(text)
        except ValueError as error:
            raise ConfigError(f"invalid value {text!r} for --{name}: {error}") from None
        if flag.support is Support.USED:
            values[name] = value
        elif value != flag.default:
            if flag.support is Support.REFUSED:
                raise ConfigError(f"--{name} is not supported: {flag.reason}")
            warnings.append(f"--{name} has no effect: {flag.reason}")
    return Given(values, tuple(warnings))


def resolve(given: Given, *, offline: bool = False) -> ServerConfig:
    """Check the settings against each other and complete them.

    Args:
        offline: for a tool that works on the member's directory: nothing listens or dials.

    Raises:
        ConfigError: something is wrong; one line says what.
    """
    warnings = list(given.warnings)
    name = given["name"]
    client_urls = parse_urls(given["listen-client-urls"], "listen-client-urls")
    peer_urls = parse_urls(given["listen-peer-urls"], "listen-peer-urls")
    check_can_bind(client_urls, "listen-client-urls")
    check_can_bind(peer_urls, "listen-peer-urls")
    metrics_urls: tuple[Url, ...] = ()
    if given["listen-metrics-urls"]:
        metrics_urls = parse_urls(given["listen-metrics-urls"], "listen-metrics-urls")
        check_can_bind(metrics_urls, "listen-metrics-urls")
    if "listen-client-urls" in given and "advertise-client-urls" not in given:
        raise ConfigError(
            "--advertise-client-urls is required when --listen-client-urls is set explicitly"
        )
    advertise = parse_urls(given["advertise-client-urls"], "advertise-client-urls")
    if len(peer_urls) > 1:
        raise ConfigError(
            f"--listen-peer-urls: this engine listens on one address, got {len(peer_urls)}"
        )
    _check_timing(given)
    initial_cluster = _initial_cluster(given, name)
    engine = _one_of(given, "engine", ENGINES)
    client_tls, peer_tls = TlsFiles.of(given), TlsFiles.of(given, "peer-")
    if not offline:
        _check_client_tls(client_tls, (*client_urls, *metrics_urls))
        _check_peer_tls(peer_tls, engine, peer_urls, initial_cluster)
    if engine == "local" and len(initial_cluster) > 1:
        raise ConfigError("--engine local is for one member; --initial-cluster names several")
    password = Path(given["peer-password-file"]) if given["peer-password-file"] else None
    if engine != "native" and given["force-new-cluster"]:
        raise ConfigError(f"--force-new-cluster: --engine {engine} cannot change its members")
    learners = "max-learners" if "max-learners" in given else "experimental-max-learners"
    if _one_of(given, "metrics", ("basic", "extensive")) == "extensive":
        warnings.append("--metrics=extensive: durations of calls are not measured yet")
    quota = given["quota-backend-bytes"]
    if quota > QUOTA_ADVISED_MAX_BYTES:
        warnings.append(f"--quota-backend-bytes={quota} is more than the advised 8 GiB")
    progress = given["watch-progress-notify-interval"]
    if "experimental-watch-progress-notify-interval" in given:
        progress = given["experimental-watch-progress-notify-interval"]
    if progress < PROGRESS_INTERVAL_MIN_S:
        raise ConfigError("--watch-progress-notify-interval must be at least 100ms")
    for flag in ("max-request-bytes", "max-txn-ops", "max-concurrent-streams"):
        if given[flag] == 0:
            raise ConfigError(f"--{flag} must be at least 1")
    return ServerConfig(
        name=name,
        data_dir=Path(given["data-dir"] or f"{name}.etcd"),
        client_urls=client_urls,
        peer_urls=peer_urls,
        metrics_urls=metrics_urls,
        advertise_client_urls=tuple(url.text for url in advertise),
        initial_cluster=initial_cluster,
        joins=_one_of(given, "initial-cluster-state", ("new", "existing")) == "existing",
        force_new_cluster=given["force-new-cluster"],
        cluster_token=given["initial-cluster-token"],
        engine=engine,
        peer_password_file=password,
        client_tls=client_tls,
        peer_tls=peer_tls,
        heartbeat_interval_ms=given["heartbeat-interval"],
        election_timeout_ms=given["election-timeout"],
        snapshot_count=given["snapshot-count"],
        pre_vote=given["pre-vote"],
        strict_reconfig_check=given["strict-reconfig-check"],
        learners_max=given[learners],
        quota_bytes=QUOTA_DEFAULT_BYTES if quota == 0 else quota,
        max_txn_ops=given["max-txn-ops"],
        max_request_bytes=given["max-request-bytes"],
        max_concurrent_streams=min(given["max-concurrent-streams"], 2**32 - 1),
        keepalive_interval_s=given["grpc-keepalive-interval"],
        keepalive_timeout_s=given["grpc-keepalive-timeout"],
        gateway=given["enable-grpc-gateway"],
        cors=_origins(given["cors"]),
        host_whitelist=_origins(given["host-whitelist"]),
        auto_compaction=_auto_compaction(given),
        progress_notify_interval_s=progress,
        log_level=_one_of(given, "log-level", LOG_LEVELS),
        log_format=_one_of(given, "log-format", ("json", "console")),
        log_outputs=tuple(part for part in given["log-outputs"].split(",") if part),
        warnings=tuple(warnings),
    )


def load(
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    offline: bool = False,
) -> ServerConfig:
    """Return the settings of a server started with ``arguments``; ``offline``: see ``resolve``.

    Raises:
        UsageError, ConfigError: see ``gather`` and ``resolve``.
    """
    given = gather(arguments, os.environ if environment is None else environment)
    return resolve(given, offline=offline)


def _one_of(given: Given, name: str, allowed: Sequence[str]) -> str:
    value: str = given[name]
    if value not in allowed:
        raise ConfigError(f"--{name}: unexpected value {value!r}; one of {', '.join(allowed)}")
    return value


def _origins(text: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.split(",") if part.strip()) or frozenset("*")


def _check_timing(given: Given) -> None:
    heartbeat, election = given["heartbeat-interval"], given["election-timeout"]
    if heartbeat == 0:
        raise ConfigError("--heartbeat-interval must be >0 (set to 0ms)")
    if election == 0:
        raise ConfigError("--election-timeout must be >0 (set to 0ms)")
    if election < ELECTION_PER_HEARTBEAT * heartbeat:
        raise ConfigError(
            f"--election-timeout[{election}ms] should be at least as 5 times as "
            f"--heartbeat-interval[{heartbeat}ms]"
        )
    if election > ELECTION_TIMEOUT_MAX_MS:
        raise ConfigError(
            f"--election-timeout[{election}ms] is too long, and should be set less than "
            f"{ELECTION_TIMEOUT_MAX_MS}ms"
        )


def _initial_cluster(given: Given, name: str) -> dict[str, tuple[Url, ...]]:
    """Return every member's peer URLs, this one's among them as it advertises them."""
    flag = "initial-advertise-peer-urls"
    advertised = parse_urls(given[flag], flag)
    text = given["initial-cluster"]
    if not text:
        return {name: advertised}
    pairs: dict[str, list[str]] = {}
    for part in text.split(","):
        member, equals, url = part.strip().partition("=")
        if not equals or not member or not url:
            raise ConfigError(f"--initial-cluster: expected NAME=PEER_URL, got {part.strip()!r}")
        pairs.setdefault(member, []).append(url)
    members = {
        member: parse_urls(",".join(urls), "initial-cluster") for member, urls in pairs.items()
    }
    owners: dict[str, str] = {}
    for member, urls in members.items():
        for url in urls:
            if url.address in owners:
                raise ConfigError(
                    f"--initial-cluster: {url.text} belongs to both {owners[url.address]} and "
                    f"{member}"
                )
            owners[url.address] = member
    if name not in members:
        raise ConfigError(
            f"couldn't find local name {name!r} in the initial cluster configuration "
            f"(--initial-cluster names {', '.join(members)}; set --name to one of them)"
        )
    ours = {url.address for url in members[name]}
    if ours != {url.address for url in advertised}:
        raise ConfigError(
            f"--initial-cluster has {name}={','.join(url.text for url in members[name])} but "
            f"--initial-advertise-peer-urls is {','.join(url.text for url in advertised)}; they "
            "must be equal"
        )
    return members


def _check_client_tls(files: TlsFiles, listen: Sequence[Url]) -> None:
    """Compare the files for https:// with the URLs that clients come to."""
    secure = [url for url in listen if url.scheme == "https"]
    if secure and (files.cert is None or files.key is None):
        raise ConfigError(
            "TLS key/cert (--cert-file, --key-file) must be provided for client url "
            f"{secure[0].text} with HTTPS scheme"
        )
    if not secure and not files.empty:
        raise ConfigError(
            f"certificates for clients are given, but none of the client URLs is an https:// URL: "
            f"nothing would be encrypted on {listen[0].text}"
        )


def _check_peer_tls(
    files: TlsFiles, engine: str, listen: Sequence[Url], members: Mapping[str, tuple[Url, ...]]
) -> None:
    """Compare the members' URLs with the engine, and with the files for https:// between them."""
    urls = [*listen, *(url for each in members.values() for url in each)]
    secure = [url for url in urls if url.scheme == "https"]
    if engine != "native" and secure and len(secure) == len(urls):
        raise ConfigError(f"--engine {engine} has no TLS between members: {secure[0].text}")
    check_peer_urls(files, [url.text for url in urls])


def _auto_compaction(given: Given) -> AutoCompaction:
    mode = _one_of(given, "auto-compaction-mode", ("periodic", "revision"))
    text: str = given["auto-compaction-retention"]
    wrong = f"--auto-compaction-retention={text} is wrong for mode {mode}: "
    if mode == "revision":
        if not text.isdigit():
            raise ConfigError(f"{wrong}expected a number of revisions")
        return AutoCompaction(mode, keep_revisions=int(text))
    if text.isdigit():
        return AutoCompaction(mode, keep_s=int(text) * 3600.0)
    try:
        keep_s = parse_duration_s(text)
    except ValueError as error:
        raise ConfigError(
            f"{wrong}expected hours, or {error.args[0].removeprefix('expected ')}"
        ) from None
    if keep_s < 0:
        raise ConfigError(f"{wrong}must not be negative")
    return AutoCompaction(mode, keep_s=keep_s)
