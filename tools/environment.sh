#!/usr/bin/env bash
# Makes or refreshes the virtual environment named by $1, with this tree installed in it for work.
set -euo pipefail

venv="$1"
python="$("$(dirname "$0")"/python.sh)"
echo "installing Python packages into $venv"
if command -v uv >/dev/null; then
    [[ -x $venv/bin/python ]] || uv venv --quiet --allow-existing --python "$python" "$venv"
    install() { uv pip install --quiet --python "$venv/bin/python" "$@"; }
else
    [[ -x $venv/bin/python ]] || "$python" -m venv "$venv"
    install() { "$venv/bin/python" -m pip install -qq --disable-pip-version-check "$@"; }
    install --upgrade 'pip>=25.1'
fi
# The build tools come first, so that the extensions are built by what will rebuild them.
install --group wheel
# All at once, so that versions fit together.
install --no-build-isolation --group dev --editable '.[embedded]'
