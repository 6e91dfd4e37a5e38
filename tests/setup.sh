#!/usr/bin/env bash
# What the tests use beside Python: real etcd, etcdctl and Chromium (Debian packages), Go programs
# (etcd's client, h2spec, toxiproxy).
# Where something cannot be had the tests that need it are skipped and say so; in CI that fails.
# Runs again at no cost; never fails; never starts a service.
set -uo pipefail
cd "$(dirname "$0")/.."
OUT="$PWD/.setup/bin"
mkdir -p "$OUT"
GO_MIN=1.23

say() { printf 'setup: %-18s %s\n' "$1" "$2"; }

# --- Room: the members of the tests' clusters reserve their logs' segments on disk --------------------

ROOM_GB=12
free_gb="$(df --output=avail -B1G "${TMPDIR:-/tmp}" | tail -n 1 | tr -d ' ')"
if [ "$free_gb" -lt "$ROOM_GB" ]; then
    say disk "${TMPDIR:-/tmp} has $free_gb GB free, the tests need $ROOM_GB: set TMPDIR or make room"
fi

# --- etcd and etcdctl: Debian's packages ---------------------------------------------------------

install_etcd() {
    if command -v etcd >/dev/null && command -v etcdctl >/dev/null; then
        say etcd "$(etcd --version | head -n 1), at $(command -v etcd)"
        return
    fi
    if ! command -v apt-get >/dev/null; then
        say etcd "not installed, and this is no Debian: put etcd and etcdctl 3.4 on PATH"
        return
    fi
    if [ "$(id -u)" != 0 ]; then
        say etcd "not installed: run 'sudo apt-get install etcd-server etcd-client'"
        return
    fi
    # While this file says 101 (policy-rc.d of Debian's invoke-rc.d) no package starts a service.
    local policy=/usr/sbin/policy-rc.d log="$PWD/.setup/apt.log" mine=no
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && mine=yes
    fi
    {
        apt-get update -q
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
            etcd-server etcd-client
    } >"$log" 2>&1 </dev/null
    [ "$mine" = yes ] && rm -f "$policy"
    if command -v etcd >/dev/null && command -v etcdctl >/dev/null; then
        say etcd "installed $(etcd --version | head -n 1)"
    else
        say etcd "could not be installed by apt-get, see $log"
    fi
}

# --- Go programs: etcd's own client --------------------------------------------------------------

find_go() {
    local candidate
    for candidate in "$(command -v go)" /usr/local/go/bin/go /usr/lib/go/bin/go; do
        [ -n "$candidate" ] && [ -x "$candidate" ] && { echo "$candidate"; return; }
    done
}

go_is_recent() {
    local version
    version="$("$1" env GOVERSION | sed 's/^go//')"
    [ "$(printf '%s\n%s\n' "$GO_MIN" "$version" | sort -V | head -n 1)" = "$GO_MIN" ]
}

build_go() { # NAME DIRECTORY [PACKAGE]
    local name="$1" directory="$2" package="${3:-.}" log="$PWD/.setup/go-$1.log" binary="$OUT/$1"
    if [ -x "$binary" ] && [ -z "$(find "$directory" -type f -newer "$binary")" ]; then
        say "go $name" "built already: $binary"
        return
    fi
    if [ -z "$GO" ]; then
        say "go $name" "not built: Go $GO_MIN or later is not installed (https://go.dev/dl)"
        return
    fi
    if ! go_is_recent "$GO"; then
        say "go $name" "not built: $("$GO" version) is older than $GO_MIN"
        return
    fi
    if (cd "$directory" && CGO_ENABLED=0 "$GO" build -trimpath -o "$binary" "$package") >"$log" 2>&1; then
        say "go $name" "built $binary"
    else
        say "go $name" "could not be built, see $log"
    fi
}

# --- Chromium: opens the reports of chaos -------------------------------------------------------

install_chromium() {
    if command -v chromium >/dev/null; then
        say chromium "at $(command -v chromium)"
        return
    fi
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say chromium "not installed: install it (Debian: apt-get install chromium)"
        return
    fi
    local log="$PWD/.setup/apt-chromium.log"
    {
        apt-get update -q
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends chromium
    } >"$log" 2>&1 </dev/null
    say chromium "$(command -v chromium || echo "could not be installed by apt-get, see $log")"
}

install_etcd
install_chromium
GO="$(find_go)"
build_go interop tests/interop_go
build_go load benchmarks/go
build_go h2spec tests/h2spec_go github.com/summerwind/h2spec/cmd/h2spec

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
