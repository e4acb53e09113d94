#!/usr/bin/env bash
# Makes or refreshes the virtual environment named by $1, with this tree installed in it for work.
set -euo pipefail

venv="$1"
python="$("$(dirname "$0")"/python.sh)"
echo "installing Python packages into $venv"
if command -v uv >/dev/null; then
    [[ -x $venv/bin/python ]] || uv venv --quiet --allow-existing --python "$python" "$venv"
    uv pip install --quiet --python "$venv/bin/python" --group dev --editable '.[embedded]'
else
    [[ -x $venv/bin/python ]] || "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
    "$venv/bin/python" -m pip install --quiet --group dev --editable '.[embedded]'
fi
