#!/usr/bin/env bash
# The GPU tests on a newer lavapipe, which has cooperative matrices: in a small root of Debian trixie with the Mesa of its
# backports. The root is made once, below target/ (about 500 MB, two minutes); benches/isa/run.sh finds it there too.
#
#   tests/newer_mesa.sh              every trial
#   tests/newer_mesa.sh FILTER       those with this in their names; and libtest's options
#   tests/newer_mesa.sh --root       makes the root alone
#
# Needs root's rights (chroot, mount), debootstrap and Debian's mirror: names what is missing and ends well without. What is
# mounted is seen by this script alone, so nothing is left behind.
set -euo pipefail
cd "$(dirname "$0")/.."

# the path of the root below target/
root=$(realpath -m "${CARGO_TARGET_DIR:-target}")/newer_mesa

skip() {
    printf 'skipped: a newer Mesa (%s)\n' "$1"
    exit 0
}

# the mirror that this machine uses, or else debootstrap's own
mirror() {
    apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian' 2>/dev/null | head -n 1 || true
}

make_root() {
    local part=$root.part packages=(mesa-vulkan-drivers libvulkan1 libdrm-dev linux-libc-dev)
    rm -rf "$part"
    # shellcheck disable=SC2046 # no mirror is no argument
    debootstrap --variant=minbase trixie "$part" $(mirror) || return 1
    sed -n 's/ trixie / trixie-backports /p' "$part/etc/apt/sources.list" >"$part/etc/apt/sources.list.d/backports.list"
    in_root "$part" sh -c "apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
        install -t trixie-backports ${packages[*]} >/dev/null && apt-get clean" || return 1
    mv "$part" "$root"
}

# in_root <root> <command...>: with /proc, and this project in its place; mounted for the command alone
in_root() {
    local where=$1
    shift
    mkdir -p "$where$PWD"
    unshare --mount sh -euc 'root=$1
        shift
        mount -t proc proc "$root/proc"
        mount --bind "$PWD" "$root$PWD"
        exec chroot "$root" env --chdir "$PWD" PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"' sh "$where" "$@"
}

# cargo's runner: a test binary and its arguments
if [ "${1-}" = --run ]; then
    shift
    driver=$(compgen -G "$root/usr/share/vulkan/icd.d/lvp_icd*.json" | head -n 1)
    # the second name is for old loaders
    export VK_DRIVER_FILES=${driver#"$root"} VK_ICD_FILENAMES=${driver#"$root"} XDG_RUNTIME_DIR=/tmp MARGIN_SOFTMAX_REQUIRE_GPU=1
    in_root "$root" "$@"
    exit
fi

if [ ! -d "$root" ]; then
    [ "$(id -u)" = 0 ] || skip "root's rights"
    [ -n "$(PATH=$PATH:/usr/sbin type -p debootstrap)" ] || skip debootstrap
    unshare --mount true 2>/dev/null || skip 'the right to mount'
    mkdir -p "${root%/*}"
    make_root >"$root.log" 2>&1 || { tail -n 3 "$root.log" && skip "Debian's mirror, see $root.log"; }
fi
[ "${1-}" != --root ] || exit 0
[ "$(id -u)" = 0 ] || skip "root's rights"

runner="target.'cfg(unix)'.runner = ['$PWD/tests/newer_mesa.sh', '--run']"
cargo --config "$runner" test --release --features serde,cooperative_matrix --test gpu -- "$@"
