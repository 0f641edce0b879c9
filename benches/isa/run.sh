#!/usr/bin/env bash
# What the compilers of GPUs make of the kernels, without a GPU: a table for each compiler, compared with thresholds.md. Fails
# where a threshold is not kept; ../README.md explains the columns.
#
#   benches/isa/run.sh                      every compiler whose tools are there; names those it skips
#   benches/isa/run.sh amd                  AMD alone: Mesa's RADV with its null device; seconds once built
#   benches/isa/run.sh nvidia               ptxas for sm_90 and sm_89; a minute
#   benches/isa/run.sh intel                Mesa's ANV for a Tiger Lake and an A770 that are not there (fake/); half a minute
#   benches/isa/run.sh mobile               Mesa's Honeykrisp for M1 and M2, its Turnip for Adreno 660 and 740; a minute
#   benches/isa/run.sh amd --accept         takes the values as the new thresholds
#   benches/isa/run.sh amd --only tile_64   kernels with this in their names
#   benches/isa/run.sh amd --save FOLDER    keeps the WGSL and the assembly of each kernel
#
# NVIDIA's tools are wheels from PyPI, which pip unpacks below target/ (300 MB); their licence forbids to pass them on.
#
# MARGIN_SOFTMAX_MESA: another Mesa, unpacked by `dpkg -x` from Debian's mesa-vulkan-drivers, libdrm2 and libdrm-amdgpu1 (of
#                      bookworm-backports on Debian 12): more chips of AMD, and another version for Intel
# MARGIN_SOFTMAX_ROOT: for `mobile`, another root than the one that tests/newer_mesa.sh makes: Debian trixie with
#                      mesa-vulkan-drivers, libvulkan1, libdrm-dev and linux-libc-dev of trixie-backports
# MARGIN_SOFTMAX_CUDA: a folder with NVIDIA's bin/nvcc, bin/ptxas and bin/nvdisasm instead of the wheels
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}
MARGIN_SOFTMAX_ROOT=${MARGIN_SOFTMAX_ROOT:-$target/newer_mesa}
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT

compilers=()
while [ $# != 0 ] && [ "${1#--}" = "$1" ]; do
    compilers+=("$1")
    shift
done
options=("$@")
failed=0

skip() {
    printf 'skipped: %s\n\n' "$1"
}

# table <compiler> <chip, if it has some>: fails where a threshold is not kept
table() {
    "$target/release/margin-softmax-isa" "$@" "${options[@]}"
}

# vulkan <a file of /usr/share/vulkan/icd.d>: sets the driver of `table`; fails where there is none
vulkan() {
    local driver
    driver=$(compgen -G "/usr/share/vulkan/icd.d/$1" | head -n 1) || true
    [ -n "$driver" ] || return 1
    # the second name is for old loaders
    export VK_DRIVER_FILES=$driver VK_ICD_FILENAMES=$driver MESA_SHADER_CACHE_DISABLE=true XDG_RUNTIME_DIR=$temporary
}

# library <a folder with usr/lib> <a driver's library>: sets the driver of `table` to one that is not the system's, whose own
# file has no folder in it
library() {
    local found
    found=$(compgen -G "$(realpath "$1")/usr/lib/*/$2") || { echo "no $2 in $1" >&2 && return 1; }
    printf '{"file_format_version": "1.0.0", "ICD": {"library_path": "%s", "api_version": "1.3.0"}}' "$found" \
        >"$temporary/icd.json"
    export VK_DRIVER_FILES=$temporary/icd.json VK_ICD_FILENAMES=$temporary/icd.json MESA_SHADER_CACHE_DISABLE=true
    export XDG_RUNTIME_DIR=$temporary
    libraries=${found%/*}
}

amd() {
    vulkan 'radeon_icd*.json' || { skip 'AMD (mesa-vulkan-drivers)' && return; }
    RADV_FORCE_FAMILY=navi21 table amd || failed=1
    [ -n "${MARGIN_SOFTMAX_MESA-}" ] || return 0
    library "$MARGIN_SOFTMAX_MESA" libvulkan_radeon.so
    export LD_LIBRARY_PATH=$libraries
    for family in navi31 gfx1201; do
        # where ACO prints its own listing, LLVM says so for every kernel
        RADV_FORCE_FAMILY=$family table amd 2> >(grep -v 'not a recognized processor' >&2) || failed=1
    done
    RADV_FORCE_FAMILY=navi31 table units || failed=1
}

# node <name> <a folder with libdrm's headers>: a device that is not there, to be preloaded
node() {
    cc -shared -fPIC -O1 -Wall -I"$2/libdrm" -idirafter "$2" -o "$temporary/$1.so" "$here/fake/$1.c" -ldl >&2
}

# libdrm's headers, installed or unpacked
headers() {
    if [ -e /usr/include/xf86drm.h ]; then
        echo /usr/include
        return
    fi
    if [ ! -e "$target/libdrm/usr/include/xf86drm.h" ]; then
        mkdir -p "$target/libdrm"
        (cd "$target/libdrm" && apt-get download -qq libdrm-dev && dpkg -x libdrm-dev_*.deb .) >&2
    fi
    echo "$target/libdrm/usr/include"
}

intel() {
    vulkan 'intel_icd*.json' || { skip 'Intel (mesa-vulkan-drivers)' && return; }
    node i915 "$(headers)" || { skip 'Intel (a C compiler, libdrm-dev)' && return; }
    for chip in tigerlake a770; do
        FAKE_CHIP=$chip LD_PRELOAD=$temporary/i915.so table intel || failed=1
    done
    [ -n "${MARGIN_SOFTMAX_MESA-}" ] || return 0
    library "$MARGIN_SOFTMAX_MESA" libvulkan_intel.so
    export LD_LIBRARY_PATH=$libraries
    for chip in tigerlake a770; do
        FAKE_CHIP=$chip LD_PRELOAD=$temporary/i915.so table intel || failed=1
    done
}

# in_root <chip> <a device's name> <arguments...>: the program with the libraries of MARGIN_SOFTMAX_ROOT
in_root() {
    local chip=$1 device=$2
    shift 2
    FAKE_CHIP=$chip LD_PRELOAD=$temporary/$device.so "$MARGIN_SOFTMAX_ROOT"/lib64/ld-linux-x86-64.so.2 \
        --library-path "$libraries" "$target/release/margin-softmax-isa" "$@" "${options[@]}"
}

mobile() {
    if [ ! -d "$MARGIN_SOFTMAX_ROOT" ] || [ -z "$(type -p cc)" ]; then
        skip 'Apple and Adreno (tests/newer_mesa.sh --root, a C compiler)'
        return
    fi
    library "$MARGIN_SOFTMAX_ROOT" libvulkan_asahi.so
    node asahi "$MARGIN_SOFTMAX_ROOT/usr/include"
    for chip in m1 m2; do
        # both of them print
        AGX_MESA_DEBUG=shaders in_root "$chip" asahi dump 2>&1 | table apple || failed=1
    done
    library "$MARGIN_SOFTMAX_ROOT" libvulkan_freedreno.so
    node msm "$MARGIN_SOFTMAX_ROOT/usr/include"
    for chip in a660 a740; do
        in_root "$chip" msm adreno || failed=1
    done
}

nvidia() {
    local wheels=$target/cuda/nvidia/cu13 version=13.5.37 packages=()
    if [ -z "${MARGIN_SOFTMAX_CUDA-}" ] && [ ! -x "$wheels/bin/nvdisasm" ]; then
        for package in nvcc crt runtime nvdisasm; do
            packages+=("nvidia-cuda-$package==$version")
        done
        python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$target/cuda" \
            "nvidia-nvvm==$version" "${packages[@]}" >&2 || true
    fi
    export MARGIN_SOFTMAX_CUDA=${MARGIN_SOFTMAX_CUDA:-$wheels} MARGIN_SOFTMAX_WORK=$temporary
    if [ ! -x "$MARGIN_SOFTMAX_CUDA/bin/nvdisasm" ] || [ -z "$(type -p g++)" ]; then
        skip "NVIDIA (g++, and pip for nvidia-cuda-nvcc and others of CUDA $version)"
        return
    fi
    for chip in sm_90 sm_89; do
        table nvidia "$chip" || failed=1
    done
}

[ ${#compilers[@]} != 0 ] || compilers=(amd nvidia intel mobile)
cargo build --release --quiet --locked --manifest-path "$here/Cargo.toml" --target-dir "$target"
for compiler in "${compilers[@]}"; do
    case $compiler in
        amd | nvidia | intel | mobile) ("$compiler" && exit $failed) || failed=1 ;;
        *) echo "no compiler \`$compiler\`: amd, nvidia, intel, mobile" >&2 && exit 2 ;;
    esac
done
exit $failed
