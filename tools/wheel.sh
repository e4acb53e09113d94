#!/usr/bin/env bash
# Builds a wheel that brings its own libopus: tools/wheel.sh ENVIRONMENT FOLDER
#
# The environment has the build tools (pyproject.toml, group wheel). The wheel goes through a source
# distribution made from a copy of the tree, so that nothing gets in by chance.
set -euo pipefail

tools="$(cd "$1/bin" && pwd)"
folder="$(mkdir -p "$2" && cd "$2" && pwd)"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$tools:$PATH"
license="/usr/share/doc/libopus0/copyright"

if [[ ! -r $license ]]; then
    echo "the license of libopus must go with it and is not at $license" >&2
    exit 1
fi
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
log="$work/log"
quietly() {
    "$@" >"$log" 2>&1 || { tail -n 20 "$log" >&2; exit 1; }
}

mkdir "$work/source"
tar -c --exclude=__pycache__ --exclude='*.so' --exclude='*.c' --exclude='*.html' \
    pyproject.toml setup.py MANIFEST.in README.md LICENSE NOTICE edge _native dispatch router |
    tar -x -C "$work/source"
{
    printf '\n--- libopus %s ---\n\n' "$(pkg-config --modversion opus)"
    cat "$license"
} >>"$work/source/NOTICE"

quietly "$tools/python" -m build --no-isolation --outdir "$work/linked" "$work/source"
quietly auditwheel repair --strip --wheel-dir "$work/repaired" "$work"/linked/*.whl
quietly check-wheel-contents --config pyproject.toml "$work"/repaired/*.whl
quietly twine check --strict "$work"/linked/*.tar.gz "$work"/repaired/*.whl

rm -f "$folder"/edgescribe-*.whl
mv "$work"/repaired/*.whl "$folder/"
ls "$folder"/edgescribe-*.whl
