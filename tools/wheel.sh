#!/usr/bin/env bash
# Builds a source distribution, and a wheel that brings its own libopus: tools/wheel.sh ENVIRONMENT FOLDER
#
# The version is that of the newest tag, or EDGESCRIBE_VERSION.
# The environment has the build tools (pyproject.toml, group wheel). The wheel goes through a source
# distribution made from a copy of the tree, so that nothing gets in by chance.
set -euo pipefail

tools="$(cd "$1/bin" && pwd)"
folder="$(mkdir -p "$2" && cd "$2" && pwd)"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$tools:$PATH"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
log="$work/log"
quietly() {
    "$@" >"$log" 2>&1 || { tail -n 20 "$log" >&2; exit 1; }
}

mkdir "$work/source"
tar -c --exclude=__pycache__ --exclude='*.so' --exclude='*.c' --exclude='_native/*.html' \
    pyproject.toml setup.py MANIFEST.in README.md LICENSE NOTICE edge _native dispatch router |
    tar -x -C "$work/source"
tools/notice.sh "$work/source/NOTICE"

# A copy has no tags: it is told what the tree's version is.
SETUPTOOLS_SCM_PRETEND_VERSION_FOR_EDGESCRIBE="${EDGESCRIBE_VERSION:-$(tools/version.sh "$tools/python")}"
export SETUPTOOLS_SCM_PRETEND_VERSION_FOR_EDGESCRIBE

quietly "$tools/python" -m build --no-isolation --outdir "$work/linked" "$work/source"
quietly auditwheel repair --strip --wheel-dir "$work/repaired" "$work"/linked/*.whl
quietly check-wheel-contents --config pyproject.toml "$work"/repaired/*.whl
quietly twine check --strict "$work"/linked/*.tar.gz "$work"/repaired/*.whl

rm -f "$folder"/edgescribe-*.whl "$folder"/edgescribe-*.tar.gz
mv "$work"/repaired/*.whl "$work"/linked/*.tar.gz "$folder/"
ls "$folder"/edgescribe-*.whl
