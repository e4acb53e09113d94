#!/usr/bin/env bash
# Prints the Python to use: the system's own if it is 3.11 or newer, else the newest that runs here.
set -euo pipefail

for name in python3 python3.14 python3.13 python3.12 python3.11; do
    path="$(command -v "$name")" || continue
    if "$path" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo "$path"
        exit 0
    fi
done
echo "edgescribe needs Python 3.11 or newer: sudo apt-get install python3.11" >&2
exit 1
