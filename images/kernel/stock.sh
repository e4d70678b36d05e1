#!/usr/bin/env bash
# Takes Debian's own cloud kernel apart for direct boot; no root, no compiler.
#
#   stock.sh OUT_DIR [MODULE...]
#
# MODULE                   another kernel's modules than a guest's
# OUT_DIR/vmlinux          the uncompressed ELF: QEMU enters it by PVH in half
#                          the time of a bzImage, Firecracker takes nothing else
# OUT_DIR/modules/NN-*.ko  what a guest needs, to be inserted in this order
# OUT_DIR/version          the kernel's release
#
# A module that the CPU has no use for (crc32c-intel) may answer ENODEV.
set -euo pipefail

step() { printf '==> %s\n' "$*" >&2; }
fail() { printf 'stock.sh: %s\n' "$*" >&2; exit 1; }

need() {
    command -v "$1" >/dev/null \
        || fail "$1 is missing; install it: apt-get install --no-install-recommends $2"
}

# Each is inserted after what it depends on. Device drivers come first: their
# devices are ready by the time the file systems are in.
modules=(
    virtio_mmio virtio_blk virtio_console virtio_net virtio_rng virtio_balloon
    vmw_vsock_virtio_transport
    erofs ext4 overlay fuse
    tun
    loop dm_snapshot
)

[ $# -ge 1 ] || fail "usage: stock.sh OUT_DIR [MODULE...]"
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
[ $# = 0 ] || modules=("$@")
PATH=$PATH:/usr/sbin:/sbin
need modprobe kmod
need xz xz-utils

work=$(mktemp -d "$out/.work.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# The metapackage names the newest kernel of the suite.
package=$(apt-cache depends --important linux-image-cloud-amd64 2>/dev/null \
    | awk '$1 == "Depends:" { print $2; exit }')
[ -n "$package" ] || fail "apt knows no linux-image-cloud-amd64; refresh its lists: apt-get update"

step "download $package"
# Sandboxed downloads need a directory that the user _apt can write.
(cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$package" >&2) \
    || fail "apt could not download $package; refresh its lists: apt-get update"
dpkg-deb -x "$work"/*.deb "$work/root"
version=$(basename "$work"/root/lib/modules/*)

step "extract the kernel $version"
# The x86 boot protocol says where the compressed kernel lies: setup_sects at
# 0x1f1, payload_offset and payload_length at 0x248. All but gzip, which has its
# own, end with four bytes of size that are no part of the compressed stream.
payload() {
    perl -e '
        open my $file, "<:raw", $ARGV[0] or die "$ARGV[0]: $!\n";
        local $/; my $image = <$file>;
        my $setup = (1 + ord substr $image, 0x1f1, 1) * 512;
        my ($offset, $length) = unpack "VV", substr $image, 0x248, 8;
        my $payload = substr $image, $setup + $offset, $length;
        my %unpack = ("\x1f\x8b" => "gzip", "\xfd7" => "xz", "\x28\xb5" => "zstd", "\x02!" => "lz4");
        my $tool = $unpack{substr $payload, 0, 2} or die "unknown compression\n";
        substr($payload, -4) = "" unless $tool eq "gzip";
        open my $pipe, "|-", $tool, "-dc" or die "$tool: $!\n";
        print $pipe $payload; close $pipe or die "$tool failed\n";
    ' "$1"
}
payload "$work/root/boot/vmlinuz-$version" >"$work/vmlinux" \
    || fail "could not extract the kernel from $package; install what unpacks it (xz-utils, zstd or lz4)"
[ "$(head -c 4 "$work/vmlinux")" = $'\x7fELF' ] || fail "what $package holds is not an ELF kernel"

step "pick the modules"
mkdir "$work/modules"
depmod -b "$work/root" "$version"
# Lines are "insmod PATH" in order of dependency, or "builtin NAME".
for module in "${modules[@]}"; do
    modprobe -d "$work/root" -S "$version" --show-depends "$module" \
        || fail "$package has no module $module"
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$work/order"

# Checking 16 signatures takes 70 ms of every boot under TCG and protects a guest
# that owns its kernel from nobody. A signed module ends with the signature,
# twelve bytes whose last four are the signature's length, and the mark.
unsign() {
    perl -e '
        open my $file, "+<:raw", $ARGV[0] or die "$ARGV[0]: $!\n";
        local $/; $_ = <$file>;
        s/~Module signature appended~\n\z// or exit;
        truncate $file, length() - 12 - unpack "N", substr $_, -4 or die "$ARGV[0]: $!\n";
    ' "$1"
}

number=0
while read -r path; do
    number=$((number + 1))
    name=$(basename "$path")
    to=$work/modules/$(printf %02d $number)-${name%%.ko*}.ko
    case $name in
        *.ko)    cp "$path" "$to" ;;
        *.ko.xz) xz -dc "$path" >"$to" ;;
        *)       fail "do not know how $name is compressed" ;;
    esac
    unsign "$to"
done <"$work/order"

printf '%s\n' "$version" >"$work/version"
rm -rf "$out/modules"
mv "$work/vmlinux" "$work/modules" "$work/version" "$out"
step "wrote $out: Linux $version, $number modules"
