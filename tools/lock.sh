#!/usr/bin/env bash
# Writes requirements.lock: what a gateway with all its extras installs, each version with the hashes
# of its files, for every platform: tools/lock.sh PYTHON [--upgrade]
#
# Versions that are in the file stay as long as they fit; --upgrade takes the newest.
set -euo pipefail

python="$1"
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

"$python" -m venv --without-pip "$work/environment"
"$python" -m pip --python "$work/environment/bin/python" install -qq --disable-pip-version-check \
    --group audit
"$work/environment/bin/uv" pip compile --quiet --universal --python-version 3.11 --all-extras \
    --generate-hashes --no-annotate --no-header --no-emit-index-url \
    --output-file requirements.lock "$@" pyproject.toml
