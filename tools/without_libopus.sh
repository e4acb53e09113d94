#!/usr/bin/env bash
# Runs a command where the system has no libopus: tools/without_libopus.sh COMMAND [ARGUMENT...]
#
# In a mount namespace of its own, /dev/null lies over every libopus that the loader would find.
set -euo pipefail

here="$(readlink -f "${BASH_SOURCE[0]}")"
if [[ ${1-} != --inside ]]; then
    as_root=()
    ((EUID == 0)) || as_root=(--map-root-user)
    exec unshare "${as_root[@]}" --mount -- "$here" --inside "$@"
fi
shift

find_libopus() {
    /sbin/ldconfig -p | sed -n 's/.*libopus\.so.* => //p' | xargs -r readlink -f | sort -u
}
for library in $(find_libopus); do
    mount --bind /dev/null "$library"
done
for library in $(find_libopus); do
    if [[ ! -c $library ]]; then
        echo "$library could not be hidden" >&2
        exit 1
    fi
done
exec "$@"
