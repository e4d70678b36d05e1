#!/usr/bin/env bash
# Makes pyro's Debian package.
#
#   packaging/deb.sh PYRO DIR       writes DIR/pyro_VERSION_amd64.deb, and says so
#
# The version is the one that PYRO says. The same pyro and the same documents
# give the same bytes.
set -euo pipefail

fail() { printf 'deb.sh: %s\n' "$*" >&2; exit 1; }

[ $# -eq 2 ] || { echo "usage: packaging/deb.sh PYRO DIR" >&2; exit 2; }
pyro=$(realpath "$1") out=$2
tree=$(dirname "$(realpath "$0")")/..
command -v dpkg-deb >/dev/null || fail "dpkg-deb is missing; run: apt-get install dpkg"

version=$("$pyro" --version)
version=${version#pyro }
# Nothing in it is younger than this.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1767225600}

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
umask 022

install -D -m 755 "$pyro" "$root/usr/bin/pyro"
"$tree/packaging/share.sh" "$pyro" "$root/usr/share"

doc=$root/usr/share/doc/pyro
install -D -m 644 -t "$doc" "$tree/README.md" "$tree/SKILL.md"
(cd "$tree" && find docs -type f -not -path 'docs/decisions/*' -exec install -D -m 644 {} "$doc/{}" \;)
gzip -9n <"$tree/CHANGELOG.md" >"$doc/changelog.gz"
cat >"$doc/copyright" <<COPYRIGHT
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: pyro

Files: *
Copyright: the authors of pyro
License: Apache-2.0
 On Debian systems the text of the licence is in
 /usr/share/common-licenses/Apache-2.0.
Comment:
 pyro is linked statically. Cargo.lock in its source tree names every library
 in it, and deny.toml the licences that those have.
COPYRIGHT

# What doctor calls failed is depended on; what it only warns of, or what has a
# substitute, is recommended: QEMU's is Firecracker (`pyro setup`).
mkdir "$root/DEBIAN"
(cd "$root" && find usr -type f -printf '%P\0' | LC_ALL=C sort -z \
    | (cd usr && xargs -0 md5sum) | sed 's|  |  usr/|') >"$root/DEBIAN/md5sums"
cat >"$root/DEBIAN/control" <<CONTROL
Package: pyro
Version: $version
Architecture: amd64
Maintainer: The pyro project <pyro@example.invalid>
Installed-Size: $(du -k -s --apparent-size "$root/usr" | cut -f1)
Depends: e2fsprogs
Recommends: qemu-system-x86, mmdebstrap, erofs-utils, uidmap, kmod, xz-utils, zstd, perl-base, ca-certificates
Suggests: git
Section: utils
Priority: optional
Description: disposable Linux computers in microVMs
 pyro gives a coding agent, or a person, a Linux machine of its own: a microVM
 with its own kernel and disk, no network unless allowed, and no view of the
 host. Programs run in one that is gone afterwards, or in a workspace that is
 seeded with a repository and can be compared, exported and reset.
 .
 The package holds one static program, which is the command line, the MCP
 server and, inside, the agent that it puts into guests.
CONTROL

find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
mkdir -p "$out"
package=$out/pyro_${version}_amd64.deb
dpkg-deb --root-owner-group -Zxz --build "$root" "$package" >/dev/null
printf '%s\n' "$package"
