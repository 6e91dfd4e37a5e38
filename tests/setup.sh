#!/usr/bin/env bash
# What the tests use beside Python: real etcd and etcdctl (Debian packages) and Go programs.
# Where something cannot be had the tests that need it are skipped and say so; in CI that fails.
set -uo pipefail
cd "$(dirname "$0")/.."

# --- Toxiproxy: the real proxy server that chaos's own is compared with -------------------------
TOXIPROXY_VERSION=v2.12.0
if ! command -v toxiproxy-server >/dev/null && [ ! -x .setup/bin/toxiproxy-server ]; then
  if command -v go >/dev/null; then
    echo "setup: building toxiproxy-server $TOXIPROXY_VERSION"
    mkdir -p .setup/bin .setup/toxiproxy
    if GOBIN="$PWD/.setup/toxiproxy" timeout 600 \
      go install "github.com/Shopify/toxiproxy/v2/cmd/server@$TOXIPROXY_VERSION"; then
      mv .setup/toxiproxy/server .setup/bin/toxiproxy-server
    else
      echo "setup: toxiproxy-server could not be built; the tests that compare with it will be skipped"
    fi
    rmdir .setup/toxiproxy 2>/dev/null || true
  else
    echo "setup: no Go, so no toxiproxy-server; the tests that compare with it will be skipped"
  fi
fi

exit 0
