"""The help text of ``kvstore``: what to type first, then every flag by group."""

from __future__ import annotations

from typing import Final

from kvstore.flags import CLUSTERING, FLAGS, LOGGING, MEMBER, RAFTYARD, SECURITY, USED, Support

INTRO: Final = """\
kvstore - an etcd v3 compatible key-value server

One server for development, on localhost:2379, data in ./default.etcd:

  kvstore

Then, with any etcd client:

  kvctl put greeting hello        (or: etcdctl put greeting hello)
  kvctl get greeting

Three servers, one command each, on machines 10.0.1.10, .11 and .12 (only --name and the
addresses differ):

  kvstore --name infra0 \\
    --listen-peer-urls http://10.0.1.10:2380 --initial-advertise-peer-urls http://10.0.1.10:2380 \\
    --listen-client-urls http://10.0.1.10:2379,http://127.0.0.1:2379 \\
    --advertise-client-urls http://10.0.1.10:2379 \\
    --initial-cluster infra0=http://10.0.1.10:2380,infra1=http://10.0.1.11:2380,\
infra2=http://10.0.1.12:2380 \\
    --initial-cluster-state new

A data directory that was written on another engine, with the member stopped:

  kvstore convert --to native --data-dir infra0.etcd (and the member's other flags)

Flags are etcd's: one dash or two, `--flag value` or `--flag=value`. Each can be set as an
environment variable (--data-dir is ETCD_DATA_DIR); flags win. With --config-file FILE (YAML, the
same names) flags and environment are ignored.
"""

OUTRO: Final = """\
Every other flag of etcd is known too. Those without effect here are accepted with a warning,
those that would weaken a promise are refused with the reason.

Exit status: 0 stopped on request, 1 wrong setting or failure, 2 wrong command line.
"""


def help_text() -> str:
    """Return the whole help text."""
    parts = [INTRO]
    for group in (RAFTYARD, MEMBER, CLUSTERING, SECURITY, LOGGING):
        lines = [f"{group}:"]
        for flag in USED:
            if flag.group != group or not flag.help:
                continue
            default = f" [{flag.default}]" if flag.default not in ("", False) else ""
            lines.append(f"  --{flag.name}\n        {flag.help}{default}")
        parts.append("\n".join(lines) + "\n")
    ignored = sorted(name for name, flag in FLAGS.items() if flag.support is Support.NO_EFFECT)
    refused = sorted(name for name, flag in FLAGS.items() if flag.support is Support.REFUSED)
    parts.append(f"Accepted without effect:\n{_wrap(ignored)}")
    parts.append(f"Refused:\n{_wrap(refused)}")
    return "\n".join([*parts, OUTRO])


def _wrap(names: list[str]) -> str:
    lines, line = [], " "
    for name in names:
        if len(line) + len(name) > 96:
            lines.append(line)
            line = " "
        line += f" {name}"
    return "\n".join([*lines, line]) + "\n"
