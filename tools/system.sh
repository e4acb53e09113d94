#!/usr/bin/env bash
# Sees to what pip cannot install: a C compiler, libopus, and a Python that can make environments.
# With the argument "browser": to Chromium, for the tests.
set -euo pipefail

python="$("$(dirname "$0")"/python.sh)"
version="$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')"
has_headers='import pathlib, sys, sysconfig
sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())'

missing=()
command -v cc >/dev/null || missing+=(build-essential)
command -v pkg-config >/dev/null || missing+=(pkg-config)
pkg-config --exists opus 2>/dev/null || missing+=(libopus-dev)
"$python" -c "$has_headers" || missing+=("$version-dev")
command -v uv >/dev/null || "$python" -c 'import ensurepip' 2>/dev/null || missing+=("$version-venv")
if [[ "${1:-}" == browser ]]; then
    missing=()
    command -v chromium chromium-browser google-chrome >/dev/null || missing=(chromium)
fi
((${#missing[@]})) || exit 0

as_root=()
if ((EUID != 0)); then
    as_root=(sudo -n)
fi
if ! command -v apt-get >/dev/null || ! "${as_root[@]}" true 2>/dev/null; then
    echo "missing here; install it, then run make again: sudo apt-get install ${missing[*]}" >&2
    exit 1
fi

echo "installing ${missing[*]}"
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
install() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends "${missing[@]}" >>"$log" 2>&1
}
if ! install && ! { "${as_root[@]}" apt-get update >>"$log" 2>&1 && install; }; then
    tail -n 5 "$log" >&2
    echo "apt-get could not install ${missing[*]}" >&2
    exit 1
fi
