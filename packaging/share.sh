#!/usr/bin/env bash
# What an installed pyro has besides itself: manual pages and completions.
#
#   packaging/share.sh PYRO DIR     writes them below DIR, as below /usr/share
#
# The same pyro gives the same bytes.
set -euo pipefail

[ $# -eq 2 ] || { echo "usage: packaging/share.sh PYRO DIR" >&2; exit 2; }
pyro=$1 share=$2

"$pyro" man --directory "$share/man/man1"
find "$share/man" -name '*.1' -exec gzip -9n {} +

completion() {
    mkdir -p "$share/$(dirname "$2")"
    "$pyro" completions "$1" >"$share/$2"
}
completion bash bash-completion/completions/pyro
completion zsh zsh/vendor-completions/_pyro
completion fish fish/vendor_completions.d/pyro.fish
