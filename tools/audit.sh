#!/usr/bin/env bash
# Looks for known vulnerabilities in what requirements.lock names: tools/audit.sh PYTHON
#
# A version that is known to be vulnerable is asked for first. If nothing is said against it, the
# advisories cannot be reached from here: nothing is known then, which is no failure.
set -euo pipefail

python="$1"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

"$python" -m venv --without-pip "$work/environment"
"$python" -m pip --python "$work/environment/bin/python" install -qq --disable-pip-version-check \
    --group audit
audit() {
    timeout 60 "$work/environment/bin/pip-audit" --disable-pip --progress-spinner off "$@"
}

echo 'jinja2==2.4.1' >"$work/canary"
if audit --no-deps --requirement "$work/canary" >"$work/said" 2>&1 || ! grep -Eq '(PYSEC|GHSA|CVE)-' "$work/said"; then
    echo "not audited: the advisories cannot be reached from here"
    exit 0
fi
audit --require-hashes --requirement requirements.lock
