#!/usr/bin/env bash
# Adds the license of the libopus that a wheel brings to its notices: tools/notice.sh FILE
set -euo pipefail

for license in /usr/share/doc/libopus0/copyright /usr/share/licenses/opus/COPYING \
    "$(brew --prefix opus 2>/dev/null)"/COPYING; do
    if [[ -r $license ]]; then
        {
            printf '\n--- libopus %s ---\n\n' "$(pkg-config --modversion opus)"
            cat "$license"
        } >>"$1"
        exit 0
    fi
done
echo "the license of libopus must go with it and is not where Debian, Fedora or Homebrew put it" >&2
exit 1
