#!/usr/bin/env bash
# Packs the initrd of a kernel that has modules.
#
#   initrd.sh MODULES_DIR AGENT OUT.cpio
#
# The AGENT is /init: it inserts /modules/*.ko by their names' order, mounts the
# root image on /newroot, moves there and starts itself again from it.
#
# The archive is written here, not by cpio: device nodes then need no root, and
# the same input gives the same bytes. It stays uncompressed, which boots faster.
set -euo pipefail

step() { printf '==> %s\n' "$*" >&2; }
fail() { printf 'initrd.sh: %s\n' "$*" >&2; exit 1; }

[ $# = 3 ] || fail "usage: initrd.sh MODULES_DIR AGENT OUT.cpio"
modules=$1 agent=$2 out=$3
[ -f "$agent" ] || fail "no agent at $agent; make it: cargo build --release --target x86_64-unknown-linux-musl -p pyro-agent"
ls "$modules"/*.ko >/dev/null 2>&1 || fail "no modules in $modules; make them: stock.sh $(dirname "$modules")"

inode=0

pad() { head -c $(((4 - $1 % 4) % 4)) /dev/zero; }

# entry NAME MODE [FILE | MAJOR MINOR]: one record of the "newc" format: magic,
# inode, mode, uid, gid, links, mtime, size, device, node, name length, checksum.
entry() {
    local name=$1 mode=$2 size=0 major=0 minor=0
    case $# in
        3) size=$(stat -Lc %s "$3") ;;
        4) major=$3 minor=$4 ;;
    esac
    inode=$((inode + 1))
    printf 070701
    printf %08X $inode $((mode)) 0 0 1 0 "$size" 0 0 "$major" "$minor" $((${#name} + 1)) 0
    printf '%s\0' "$name"
    pad $((110 + ${#name} + 1))
    if [ $# = 3 ]; then
        cat "$3"
        pad "$size"
    fi
}

archive() {
    for directory in dev proc sys newroot modules; do
        entry $directory 0040755
    done
    # A static Rust program aborts before main if it cannot open descriptors 0 to 2.
    entry dev/console 0020600 5 1
    entry dev/null 0020666 1 3
    entry init 0100755 "$agent"
    for module in "$modules"/*.ko; do
        entry "modules/$(basename "$module")" 0100644 "$module"
    done
    entry 'TRAILER!!!' 0
}

step "pack $agent and the modules of $modules"
trap 'rm -f "$out.part"' EXIT
trap 'exit 1' HUP INT TERM
LC_ALL=C archive >"$out.part"
mv "$out.part" "$out"
step "wrote $out ($(du -k "$out" | cut -f1) KiB)"
