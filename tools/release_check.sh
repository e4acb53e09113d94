#!/usr/bin/env bash
# Looks at what would be released, and writes its SBOM: tools/release_check.sh PYTHON FOLDER
#
# FOLDER holds one source distribution and one wheel (tools/wheel.sh), which has been tried
# (tools/test_wheel.sh). Beside them it gets edgescribe-VERSION.cdx.json, CycloneDX, of what the
# wheel with all its extras installs.
set -euo pipefail

python="$1"
folder="$(cd "$2" && pwd)"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools="$(cd "$(dirname "$python")" && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
fail() {
    echo "release: $*" >&2
    exit 1
}

wheels=("$folder"/edgescribe-*.whl)
sources=("$folder"/edgescribe-*.tar.gz)
((${#wheels[@]} == 1 && ${#sources[@]} == 1)) || fail "$folder has to hold one wheel and one source distribution"
wheel="${wheels[0]}" source="${sources[0]}"
version="$(basename "$source" .tar.gz)"
version="${version#edgescribe-}"
[[ $(basename "$wheel") == edgescribe-"$version"-* ]] || fail "$wheel is not of version $version"

echo "== version $version"
tag="$(git describe --tags --exact-match 2>/dev/null || true)"
if [[ -z $tag ]]; then
    echo "no tag here: not to be released"
    [[ $version == *dev* ]] || [[ -n ${EDGESCRIBE_VERSION:-} ]] || fail "version $version has no tag"
else
    [[ $tag == "v$version" ]] || fail "the tag is $tag, the version $version: build again, from a clean tree"
    grep -q "^## $version\b" CHANGELOG.md || fail "CHANGELOG.md has no section $version"
fi

echo "== metadata and contents"
"$tools/twine" check --strict "$source" "$wheel"
"$tools/check-wheel-contents" --config pyproject.toml "$wheel"
"$tools/auditwheel" show "$wheel" | tee "$work/shown"
grep -Eq '"(manylinux|musllinux)_[0-9_]+_[a-z0-9_]+"' "$work/shown" || fail "the wheel is for this machine only"
for kept in edge/web/console/index.html edge/web/console/sample.ogg edge/session/store/lua _native/opus.pyx _native/pcm16.h NOTICE; do
    tar -tzf "$source" >"$work/listed"
    grep -q "/$kept" "$work/listed" || fail "$kept is not in the source distribution"
done

echo "== the wheels that cibuildwheel would build"
"$python" -m venv --without-pip "$work/builder"
"$python" -m pip --python "$work/builder/bin/python" install -qq --disable-pip-version-check \
    --group release
for target in linux:x86_64 linux:aarch64 macos:arm64 macos:x86_64; do
    "$work/builder/bin/cibuildwheel" --platform "${target%:*}" --archs "${target#*:}" \
        --print-build-identifiers . >"$work/identifiers"
    grep -q . "$work/identifiers" || fail "cibuildwheel builds nothing for $target"
    sed "s/^/$target  /" "$work/identifiers"
done

echo "== software bill of materials"
"$python" -m venv --without-pip "$work/installed"
"$python" -m pip --python "$work/installed/bin/python" install -qq --disable-pip-version-check \
    "${wheel}[embedded,otel,redis]"
said="$("$work/installed/bin/python" -c 'from edge.version import VERSION; print(VERSION)')"
[[ $said == "$version" ]] || fail "what is installed calls itself $said"
bill="$folder/edgescribe-$version.cdx.json"
rm -f "$folder"/edgescribe-*.cdx.json
"$work/builder/bin/cyclonedx-py" environment --output-format JSON --output-reproducible \
    --mc-type application --output-file "$bill" "$work/installed/bin/python"
"$python" - "$bill" "$version" <<'END'
import json
import sys

path = sys.argv[1]
with open(path, encoding="utf-8") as file:
    bill = json.load(file)
# Where this machine had the wheel is nobody's business.
for part in bill["components"]:
    part["externalReferences"] = [
        each
        for each in part.get("externalReferences", [])
        if not each["url"].startswith("file:")
    ]
with open(path, "w", encoding="utf-8") as file:
    json.dump(bill, file, indent=2)
parts = {part["name"].lower(): part["version"] for part in bill["components"]}
assert bill["bomFormat"] == "CycloneDX", bill["bomFormat"]
assert parts.get("edgescribe") == sys.argv[2], parts.get("edgescribe")
missing = {"sanic", "msgspec", "uvloop", "onnxruntime", "opentelemetry-sdk", "redis"} - set(parts)
assert not missing, missing
print(f"{len(parts)} components")
END
echo "release: $(basename "$source"), $(basename "$wheel") and $(basename "$bill") are in order"
