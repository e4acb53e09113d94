#!/usr/bin/env bash
# Sees to an nginx for tests and benchmarks that put one in front of something: Debian's, unpacked
# into the environment, since an installed one would start by itself.
# Usage: tools/nginx.sh ENVIRONMENT
set -euo pipefail

folder="$1/nginx"
if command -v nginx >/dev/null || [[ -x "$folder/usr/sbin/nginx" ]]; then
    exit 0
fi

as_root=()
if ((EUID != 0)); then
    as_root=(sudo -n)
fi
log="$(mktemp)"
packages="$(mktemp -d)"
trap 'rm -rf "$log" "$packages"' EXIT
chmod 755 "$packages"

download() {
    (cd "$packages" && apt-get download nginx >>"$log" 2>&1)
}
if ! command -v apt-get >/dev/null ||
    ! { download || { "${as_root[@]}" apt-get update >>"$log" 2>&1 && download; }; }; then
    tail -n 5 "$log" >&2
    echo "no nginx here: what compares with it is skipped; install nginx to have it run" >&2
    exit 0
fi
dpkg-deb -x "$packages"/nginx_*.deb "$folder"
if ! "$folder/usr/sbin/nginx" -v 2>>"$log"; then
    tail -n 5 "$log" >&2
    rm -rf "$folder"
    echo "Debian's nginx does not run here: what compares with it is skipped" >&2
fi
