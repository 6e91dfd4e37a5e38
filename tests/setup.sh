#!/usr/bin/env bash
# What the tests use beside Python: real etcd and etcdctl (Debian packages) and Go programs.
# Where something cannot be had the tests that need it are skipped and say so; in CI that fails.
set -uo pipefail
cd "$(dirname "$0")/.."
exit 0
