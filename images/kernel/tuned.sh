#!/usr/bin/env bash
# Compiles pyro's own guest kernel from Debian's source; no root.
#
#   tuned.sh FRAGMENT OUT_DIR
#
# FRAGMENT           the options that differ from `make allnoconfig`
# OUT_DIR/vmlinux    stripped PVH ELF with everything built in
# OUT_DIR/config     the whole configuration
# OUT_DIR/version    the kernel's release
#
# 12 CPU minutes and 3 GiB under ${TMPDIR:-/var/tmp}, removed afterwards. The
# same source, fragment and compiler give the same bytes.
set -euo pipefail

step() { printf '==> %s\n' "$*" >&2; }
fail() { printf 'tuned.sh: %s\n' "$*" >&2; exit 1; }

source_package=linux-source-6.12

# Without one of these the guest does not boot or pyro does not work in it. What
# else Kconfig drops, as versions rename options, is only reported.
essential=(
    PVH VIRTIO_MMIO VIRTIO_MMIO_CMDLINE_DEVICES X86_MPPARSE ACPI PCI KVM_GUEST
    VIRTIO_BLK BLK_DEV_LOOP DM_SNAPSHOT VIRTIO_CONSOLE VIRTIO_VSOCKETS SERIAL_8250_CONSOLE UNIX98_PTYS VMGENID
    BINFMT_ELF BINFMT_SCRIPT DEVTMPFS_MOUNT PROC_FS SYSFS TMPFS
    EROFS_FS EROFS_FS_XATTR EROFS_FS_SECURITY EXT4_FS EXT4_FS_SECURITY OVERLAY_FS
    TUN INET UNIX CPU_MITIGATIONS SECCOMP_FILTER
    CGROUPS MEMCG BLK_CGROUP CFS_BANDWIDTH CGROUP_PIDS USER_NS PID_NS NET_NS
)

[ $# = 2 ] || fail "usage: tuned.sh FRAGMENT OUT_DIR"
[ -f "$1" ] || fail "no configuration fragment at $1"
fragment=$(realpath "$1")
mkdir -p "$2"
out=$(cd "$2" && pwd)
for tool in make gcc flex bison bc perl xz strip; do
    command -v "$tool" >/dev/null \
        || fail "$tool is missing; install: apt-get install --no-install-recommends make gcc flex bison bc perl xz-utils libelf-dev"
done
[ -e /usr/include/libelf.h ] \
    || fail "libelf.h is missing; install it: apt-get install --no-install-recommends libelf-dev"

work=$(mktemp -d "${TMPDIR:-/var/tmp}/pyro-kernel.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cd "$work"

step "download $source_package"
apt-get -qq -o APT::Sandbox::User=root download "$source_package" >&2 \
    || fail "apt could not download $source_package; refresh its lists: apt-get update"

step "unpack"
dpkg-deb --fsys-tarfile ./*.deb | tar -xO "./usr/src/$source_package.tar.xz" | tar -xJ
cd "$source_package"

step "add the parameter lapic_timer_hz"
# The only change to Debian's source. TCG and KVM run the APIC timer at exactly
# 1 GHz; measuring that takes 0.25 s of a 0.75 s boot where the CPU has no
# deadline timer, which is under TCG. (`nolapic_timer` saves the same, but then
# the old PIT wakes an idle guest 37 times a second.)
cat >>arch/x86/kernel/apic/apic.c <<'END'

static int __init setup_lapic_timer_hz(char *arg)
{
	unsigned int hz;

	if (!arg || kstrtouint(arg, 0, &hz))
		return -EINVAL;
	lapic_timer_period = hz / HZ;
	return 0;
}
early_param("lapic_timer_hz", setup_lapic_timer_hz);
END

step "configure"
make -s KCONFIG_ALLCONFIG="$fragment" allnoconfig >&2

value() { sed -n "s/^CONFIG_$1=//p" .config; }

dropped=()
while IFS='=' read -r option wanted; do
    [ "$(value "$option")" = "$wanted" ] || dropped+=("$option=$wanted")
done < <(sed -n -e 's/^CONFIG_//p' -e 's/^# CONFIG_\(.*\) is not set$/\1=/p' "$fragment")
[ ${#dropped[@]} = 0 ] || step "  Kconfig did not take: ${dropped[*]}"
for option in "${essential[@]}"; do
    [ "$(value "$option")" = y ] \
        || fail "CONFIG_$option is not in the configuration, and a guest needs it; see its dependencies in $fragment"
done

step "compile on $(nproc) cores (a quarter of an hour on one)"
# What else the build would read off this machine: its clock, user and name.
KBUILD_BUILD_TIMESTAMP=$(date -u -r Makefile)
export KBUILD_BUILD_TIMESTAMP KBUILD_BUILD_USER=pyro KBUILD_BUILD_HOST=pyro KBUILD_BUILD_VERSION=1
nice make -s -j"$(nproc)" vmlinux >"$work/log" 2>&1 \
    || { tail -n 30 "$work/log" >&2; fail "the kernel did not compile (its last words are above)"; }

strip --strip-all -o "$out/vmlinux.part" vmlinux
cp .config "$out/config"
make -s kernelrelease >"$out/version"
mv "$out/vmlinux.part" "$out/vmlinux"
step "wrote $out: Linux $(cat "$out/version"), $(du -m "$out/vmlinux" | cut -f1) MiB, in $((SECONDS / 60)) min $((SECONDS % 60)) s"
