#!/usr/bin/env bash
# Prints the version of this tree, by its tags: tools/version.sh PYTHON
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
"$1" -m setuptools_scm 2>/dev/null
