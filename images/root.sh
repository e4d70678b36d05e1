#!/usr/bin/env bash
# Builds the root image of one environment, in two stages.
#
#   root.sh tree  SUITE PACKAGES SOURCE_DATE_EPOCH OUT.tar
#       Debian's SUITE with PACKAGES (comma separated) as a tar, and
#       OUT.packages (name<TAB>version, sorted) beside it. Needs the network.
#   root.sh image TREE.tar AGENT SOURCE_DATE_EPOCH OUT.erofs
#       The read-only image: that tree with the static AGENT baked in.
#       A few seconds, no network; run again for every new agent.
#
# Root is used where it is there and not needed where it is not. The same
# packages, agent and epoch give the same bytes on every machine.
set -euo pipefail

step() { printf '==> %s\n' "$*" >&2; }
fail() { printf 'root.sh: %s\n' "$*" >&2; exit 1; }

usage() {
    fail "usage: root.sh tree SUITE PACKAGES SOURCE_DATE_EPOCH OUT.tar
       root.sh image TREE.tar AGENT SOURCE_DATE_EPOCH OUT.erofs"
}

need() {
    command -v "$1" >/dev/null \
        || fail "$1 is missing; install it: apt-get install --no-install-recommends $2"
}

epoch() {
    case $1 in
        '' | *[!0-9]*) fail "SOURCE_DATE_EPOCH '$1' is not a number of seconds" ;;
    esac
}

# Runs inside the new tree, just before mmdebstrap makes the tar.
customize() {
    set -euo pipefail
    # The packages' own post-install steps compile with SOURCE_DATE_EPOCH set,
    # which makes Python check a hash of every source at every import. Compile
    # again so that only the source's time is compared. That time must survive:
    # the tar clamps what is newer than the epoch, so clamp it before.
    if command -v python3 >/dev/null; then
        local libraries=(/usr/lib/python3 /usr/lib/python3.[0-9]*)
        find "${libraries[@]}" -name __pycache__ -prune -exec rm -rf {} +
        find "${libraries[@]}" /etc/python3.[0-9]* -type f -name '*.py' \
            -newermt "@$SOURCE_DATE_EPOCH" -exec touch --date="@$SOURCE_DATE_EPOCH" {} +
        # One job in a fixed order: marshalled references depend on what the
        # same interpreter compiled before. lib2to3 tests with Python 2 sources.
        env --unset=SOURCE_DATE_EPOCH PYTHONHASHSEED=0 python3 -m compileall \
            -q -f --invalidation-mode timestamp -x lib2to3/tests "${libraries[@]}"
    fi

    # What a disposable machine never reads, or what differs at every build.
    # Directories stay: programs expect them.
    find /var/log /var/cache /var/lib/apt/lists -type f -delete
    rm -f /var/lib/dpkg/*-old /etc/{passwd,group,shadow,gshadow}- /etc/.pwd.lock
    : >/etc/machine-id

    # Packages installed later in the guest link manual pages into these.
    mkdir -p /usr/share/man/man{1,8}

    # The agent writes a name server and a host name when a workspace is
    # activated. mmdebstrap put the host's own here, as links or odd modes.
    rm -f /etc/{hostname,resolv.conf}
    echo pyro >/etc/hostname
    echo '# pyro-agent names a server here when the network policy has egress.' >/etc/resolv.conf
    printf '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n' >/etc/hosts
}

tree() {
    [ $# = 4 ] || usage
    local suite=$1 packages=$2 out=$4 mode=unshare
    epoch "$3"
    case $out in *.tar) ;; *) fail "the tree '$out' must be named *.tar" ;; esac
    need mmdebstrap mmdebstrap
    # As root mmdebstrap mounts /proc and more in the tree. In a mount namespace of
    # its own nothing stays mounted, however it ends.
    local apart=()
    if [ "$(id -u)" = 0 ]; then
        mode=root
        unshare --mount -- true 2>/dev/null && apart=(unshare --mount --)
    else
        need newuidmap uidmap
    fi

    # Not local: the trap runs after this function has returned.
    part=$out.part
    trap 'rm -f "$part" "$part.packages" "$part.log"' EXIT
    # With a trap of its own a signal waits for mmdebstrap, which cleans up too.
    trap 'exit 1' HUP INT TERM

    local excluded=()
    for path in man info locale doc lintian groff; do
        excluded+=(--dpkgopt="path-exclude=/usr/share/$path/*")
    done
    excluded+=(--dpkgopt='path-include=/usr/share/doc/*/copyright'
        --dpkgopt='path-include=/usr/share/locale/locale.alias')
    # These two stay in the image, for whoever runs apt in the guest: a disposable
    # disk need not be waited for, and nobody reads translated descriptions.
    local kept=(--dpkgopt=force-unsafe-io --aptopt='Acquire::Languages "none"')

    # mmdebstrap gives this to sh, with the tree as $1.
    local hook
    hook="chroot \"\$1\" bash <<'END'
$(declare -f customize)
customize
END"

    step "bootstrap Debian $suite with ${packages:-nothing more} ($mode mode)"
    # No mirror is named: mmdebstrap knows Debian's own, security included.
    SOURCE_DATE_EPOCH=$3 "${apart[@]}" mmdebstrap --verbose --mode=$mode --variant=minbase --format=tar \
        ${packages:+--include="$packages"} "${excluded[@]}" "${kept[@]}" \
        --customize-hook="$hook" \
        "$suite" "$part" >"$part.log" 2>&1 || {
        grep '^[EW]: ' "$part.log" >&2 || tail -n 20 "$part.log" >&2
        fail "mmdebstrap could not build $suite with '$packages' (see above); is the network there, and is every package in $suite?"
    }

    step "list the packages"
    tar -xOf "$part" ./var/lib/dpkg/status \
        | awk '/^Package: /{name=$2} /^Version: /{print name "\t" $2}' | LC_ALL=C sort >"$part.packages"

    mv "$part.packages" "${out%.tar}.packages"
    mv "$part" "$out"
    step "wrote $out ($(du -m "$out" | cut -f1) MiB, $(wc -l <"${out%.tar}.packages") packages)"
}

# Runs as root, or as root of a user namespace of ours, where the tree's owners exist.
assemble() {
    set -euo pipefail
    local tree=$1 agent=$2 epoch=$3 out=$4
    umask 022
    work=$(mktemp -d "$out.XXXXXX")
    trap 'rm -rf "$work" "$work.part"' EXIT
    trap 'exit 1' HUP INT TERM
    chmod 755 "$work"

    step "unpack $tree"
    # No device nodes: only real root could make them, and nobody misses them.
    # The tuned kernel mounts devtmpfs before PID 1, the initrd has its own.
    tar -C "$work" -xpf "$tree" --numeric-owner --xattrs --xattrs-include='*' --exclude='./dev/*'

    step "bake in $agent"
    # The base is read-only: every directory that init mounts on must be there.
    mkdir -p "$work"/{proc,sys,dev,run,tmp,mnt,workspace}
    install -D -m 755 "$agent" "$work/usr/lib/pyro/pyro-agent"
    find "$work/usr/lib/pyro" "$work/workspace" -exec touch --date="@$epoch" {} +

    # From the content: a workspace whose upper layer meets another base fails
    # to mount (ESTALE) instead of reading the wrong files.
    local digest uuid
    digest=$(printf '%s\n' "$epoch" | cat - "$agent" "$tree" | sha256sum)
    uuid=${digest:0:8}-${digest:8:4}-8${digest:13:3}-8${digest:17:3}-${digest:20:12}

    step "make $out"
    # Not compressed: decompressing costs more than reading, most of all under
    # TCG. Times older than the epoch stay, newer ones are clamped to it.
    SOURCE_DATE_EPOCH=$epoch mkfs.erofs --quiet -U "$uuid" "$work.part" "$work" \
        || fail "mkfs.erofs could not make $out (see above); is the disk full?"
    mv "$work.part" "$out"
}

image() {
    [ $# = 4 ] || usage
    epoch "$3"
    [ -f "$1" ] || fail "no tree at $1; make it: root.sh tree SUITE PACKAGES $3 $1"
    [ -f "$2" ] || fail "no agent at $2; make it: cargo build --release --target x86_64-unknown-linux-musl -p pyro-agent"
    need mkfs.erofs erofs-utils

    if [ "$(id -u)" = 0 ]; then
        (assemble "$@")
    else
        need newuidmap uidmap
        unshare --map-root-user --map-auto -- true \
            || fail "$(id -un) may not make a user namespace with subordinate ids (see above); as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $(id -un)"
        # The functions travel as text, so this script may be anywhere, even in a pipe.
        unshare --map-root-user --map-auto -- \
            bash -c "$(declare -f step fail assemble); assemble \"\$@\"" root.sh "$@"
    fi
    step "wrote $4 ($(du -m "$4" | cut -f1) MiB)"
}

# Unprivileged users' PATH often lacks these, chroot is there.
PATH=$PATH:/usr/sbin:/sbin
case ${1-} in
    tree | image) "$@" ;;
    *) usage ;;
esac
