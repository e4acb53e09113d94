#!/usr/bin/env bash
# Tries a wheel in a fresh environment where the system has no libopus:
# tools/test_wheel.sh PYTHON FOLDER
#
# The tests are copied away from the tree, so that they meet the installed packages only.
set -euo pipefail

python="$1"
wheel="$(readlink -f "$2"/edgescribe-*.whl)"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

echo "installing $(basename "$wheel") into a fresh environment"
"$python" -m venv --without-pip "$work/environment"
"$python" -m pip --python "$work/environment/bin/python" install -qq --disable-pip-version-check \
    "${wheel}[embedded]" --group test

mkdir -p "$work"/tree/tests/{server,audio,asr}
cp -r pyproject.toml "$work/tree"
cp -r tests/conftest.py tests/native tests/support "$work/tree/tests"
cp -r tests/audio/support "$work/tree/tests/audio"
cp -r tests/asr/support "$work/tree/tests/asr"
cp tests/server/test_start.py tests/server/test_tls.py "$work/tree/tests/server"

hidden="$PWD/tools/without_libopus.sh"
vectors="${EDGESCRIBE_OPUS_VECTORS:-$PWD/../shared/opus_vectors}"
cd "$work/tree"
alone() {
    env -i PATH="$work/environment/bin:/usr/bin:/bin" HOME="$work" LANG=C.UTF-8 \
        EDGESCRIBE_OPUS_VECTORS="$vectors" "$hidden" "$@"
}
alone edgescribe doctor --port 0 | tee "$work/doctor"
if ! grep -q 'libopus .* at .*/site-packages/edgescribe.libs/libopus' "$work/doctor"; then
    echo "the libopus that runs is not the one in the wheel" >&2
    exit 1
fi
# The demo takes as long as its speech does, and leaves most of the machine to the tests.
alone edgescribe demo >"$work/demo" 2>&1 &
demo=$!
tested=0
alone python -m pytest -q -p no:cacheprovider || tested=$?
wait "$demo" || { cat "$work/demo" >&2; exit 1; }
tail -n 9 "$work/demo"
exit "$tested"
