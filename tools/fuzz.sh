#!/usr/bin/env bash
# Builds the extensions with the address and undefined-behaviour sanitizers in a copy of the tree
# and runs damaged inputs through them.
#
#   tools/fuzz.sh PYTHON [ARGUMENTS OF tests.fuzz.mutants]
set -euo pipefail

python=$1
shift
root=$(cd "$(dirname "$0")/.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT

compiler=${CC:-gcc}
runtimes=()
for name in libasan.so libubsan.so; do
    path=$("$compiler" -print-file-name="$name")
    if [[ $path != /* ]]; then
        echo "fuzz: $compiler has no $name; install the sanitizer runtimes of the compiler" >&2
        exit 1
    fi
    runtimes+=("$path")
done

mkdir "$copy/tests"
cp -r "$root"/_native "$root"/setup.py "$root"/pyproject.toml "$copy"
cp -r "$root"/tests/fuzz "$root"/tests/support "$copy/tests"
rm -f "$copy"/_native/*.so "$copy"/_native/*.c
cd "$copy"
EDGESCRIBE_SANITIZE=1 "$python" setup.py -q build_ext --inplace >build.log 2>&1 || {
    cat build.log >&2
    exit 1
}

# pymalloc hides small blocks from the address sanitizer. What CPython keeps until it exits would be
# reported as leaks there, so the check is asked for while everything is still in place.
export PYTHONMALLOC=malloc PYTHONPATH="$copy"
export ASAN_OPTIONS=detect_leaks=1:leak_check_at_exit=0:abort_on_error=0:exitcode=99:detect_stack_use_after_return=1
export ASAN_OPTIONS=$ASAN_OPTIONS:quarantine_size_mb=16
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1:exitcode=98
LD_PRELOAD="${runtimes[*]}" "$python" -m tests.fuzz.mutants --build sanitize "$@"
