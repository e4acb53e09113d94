#!/usr/bin/env bash
# Does what the Dockerfile does, without a container engine: tools/prove_image.sh PYTHON FOLDER
#
# All wheels are collected, then installed with no index into an empty environment, as the image does.
# The gateway runs from there in namespaces of its own: no libopus of the system, everything
# read-only but /tmp and the data directory, no capability, user 10001 where the caller is root, an
# empty environment, its own process 1. It is probed, transcribes speech, and must stop by itself.
set -euo pipefail

RUN_AS=10001
here="$(readlink -f "${BASH_SOURCE[0]}")"

inside() {
    local work="$1" port="$2"
    local bin="$work/environment/bin"
    mount -t proc proc /proc
    mount --bind "$work" "$work"
    mount -t tmpfs -o mode=1777 tmpfs "$work/tmp"
    mount -t tmpfs -o mode=1777 tmpfs "$work/data"
    mount -o remount,bind,ro "$work"
    mount -o remount,bind,ro /

    local image=(setpriv --no-new-privs)
    if [[ $3 == 0 ]]; then
        image+=(--reuid="$RUN_AS" --regid="$RUN_AS" --clear-groups)
        image+=(--inh-caps=-all --bounding-set=-all)
    fi
    image+=(env -i PATH="$bin:/usr/bin:/bin" LANG=C.UTF-8 HOME="$work/data" TMPDIR="$work/tmp")
    image+=(PYTHONUNBUFFERED=1 EDGESCRIBE_HOST=127.0.0.1 EDGESCRIBE_PORT="$port")
    image+=(EDGESCRIBE_DATA_DIR="$work/data")
    cd "$work/data"
    if "${image[@]}" touch "$bin/edgescribe" 2>/dev/null; then
        echo "the environment is not read-only" >&2
        exit 1
    fi
    "${image[@]}" edgescribe doctor | tee "$work/tmp/doctor"
    grep -q 'libopus .* at .*/site-packages/edgescribe.libs/libopus' "$work/tmp/doctor"

    "${image[@]}" edgescribe serve &
    local gateway=$!
    for _ in {1..120}; do
        kill -0 "$gateway"
        ! "${image[@]}" edgescribe probe ready >"$work/tmp/probe" 2>&1 || break
        sleep 0.25
    done
    cat "$work/tmp/probe"
    "${image[@]}" edgescribe probe live
    local sample
    sample="$("${image[@]}" python -c \
        'from edge.demo.speech import demo_recordings as r; print(r()[1].path)')"
    "${image[@]}" edgescribe transcribe "$sample" "http://127.0.0.1:$port" | tee "$work/tmp/said"
    grep -qi 'fail better' "$work/tmp/said"

    kill -TERM "$gateway"
    wait "$gateway"
    # Helpers end by themselves as soon as they see that the main process has gone.
    for _ in {1..20}; do
        pgrep -f "$work/environment" >/dev/null || break
        sleep 0.25
    done
    if pgrep -fa "$work/environment" >&2; then
        echo "the gateway left processes behind" >&2
        exit 1
    fi
    echo "the image's steps work: installed, probed, transcribed, stopped"
}

if [[ ${1-} == --inside ]]; then
    shift
    inside "$@"
    exit
fi

builder="$1"
wheel="$(readlink -f "$2"/edgescribe-*.whl)"
version="$("$builder" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
as_user=()
((EUID)) || as_user=(setpriv --reuid="$RUN_AS" --regid="$RUN_AS" --clear-groups)
python=""
for candidate in "$("$builder" -c 'import sys; print(sys._base_executable)')" \
    "/usr/local/bin/python$version" "/usr/bin/python$version"; do
    if "${as_user[@]}" test -x "$candidate"; then
        python="$candidate"
        break
    fi
done
if [[ -z $python ]]; then
    echo "no Python $version here that user $RUN_AS may run: apt-get install python$version" >&2
    exit 1
fi

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir "$work/tmp" "$work/data"
pip=("$builder" -m pip --disable-pip-version-check -qq)
echo "collecting wheels"
"${pip[@]}" wheel --wheel-dir "$work/wheels" --require-hashes \
    --requirement "$(dirname "$here")/../requirements.lock"
cp "$wheel" "$work/wheels"
echo "installing them into an empty environment"
"$python" -m venv --without-pip "$work/environment"
"${pip[@]}" --python "$work/environment/bin/python" install --no-index \
    --find-links "$work/wheels" 'edgescribe[embedded]'

port="$("$builder" -c 'import socket
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    print(probe.getsockname()[1])')"
as_root=()
((EUID == 0)) || as_root=(--map-root-user)
unshare "${as_root[@]}" --mount --pid --fork --kill-child -- \
    "$(dirname "$here")/without_libopus.sh" --inside \
    "$here" --inside "$work" "$port" "$EUID"
