#!/usr/bin/env bash
# What the compilers of GPUs make of the kernels, without a GPU: a table for each compiler, compared with thresholds.md. Fails
# where a threshold is not kept; ../README.md explains the columns.
#
#   benches/isa/run.sh                      every compiler whose tools are there; names those it skips
#   benches/isa/run.sh amd                  AMD alone: Mesa's RADV with its null device; seconds once built
#   benches/isa/run.sh nvidia               ptxas for sm_90 and sm_89; a minute
#   benches/isa/run.sh intel                Mesa's ANV for a Tiger Lake and an A770 that are not there (fake/); half a minute
#   benches/isa/run.sh amd --accept         takes the values as the new thresholds
#   benches/isa/run.sh amd --only tile_64   kernels with this in their names
#   benches/isa/run.sh amd --save FOLDER    keeps the WGSL and the assembly of each kernel
#
# NVIDIA's tools are wheels from PyPI, which pip unpacks below target/ (300 MB); their licence forbids to pass them on.
#
# MARGIN_SOFTMAX_MESA: another Mesa, unpacked by `dpkg -x` from Debian's mesa-vulkan-drivers, libdrm2 and libdrm-amdgpu1 (of
#                      bookworm-backports on Debian 12): more chips of AMD, and another version for Intel
# MARGIN_SOFTMAX_CUDA: a folder with NVIDIA's bin/nvcc, bin/ptxas and bin/nvdisasm instead of the wheels
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}
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

# table <compiler> <chip, if it has some>
table() {
    local status=0
    "$target/release/margin-softmax-isa" "$@" "${options[@]}" || status=$?
    [ "$status" = 0 ] || failed=1
}

# vulkan <a file of /usr/share/vulkan/icd.d>: sets the driver of `table`; fails where there is none
vulkan() {
    local driver
    driver=$(compgen -G "/usr/share/vulkan/icd.d/$1" | head -n 1) || true
    [ -n "$driver" ] || return 1
    # the second name is for old loaders
    export VK_DRIVER_FILES=$driver VK_ICD_FILENAMES=$driver MESA_SHADER_CACHE_DISABLE=true XDG_RUNTIME_DIR=$temporary
}

# other_mesa <a library>: the same of MARGIN_SOFTMAX_MESA, whose own file has no folder in it
other_mesa() {
    local library
    library=$(compgen -G "$(realpath "$MARGIN_SOFTMAX_MESA")/usr/lib/*/$1")
    printf '{"file_format_version": "1.0.0", "ICD": {"library_path": "%s", "api_version": "1.3.0"}}' "$library" \
        >"$temporary/icd.json"
    export VK_DRIVER_FILES=$temporary/icd.json VK_ICD_FILENAMES=$temporary/icd.json LD_LIBRARY_PATH=${library%/*}
}

amd() {
    vulkan 'radeon_icd*.json' || { skip 'AMD (mesa-vulkan-drivers)' && return; }
    RADV_FORCE_FAMILY=navi21 table amd
    [ -n "${MARGIN_SOFTMAX_MESA-}" ] || return 0
    other_mesa libvulkan_radeon.so
    for family in navi31 gfx1201; do
        # where ACO prints its own listing, LLVM says so for every kernel
        RADV_FORCE_FAMILY=$family table amd 2> >(grep -v 'not a recognized processor' >&2)
    done
}

# node <name>: a device that is not there, to be preloaded
node() {
    local headers=$target/libdrm/usr/include
    if [ -e /usr/include/xf86drm.h ]; then
        headers=/usr/include
    elif [ ! -e "$headers/xf86drm.h" ] && [ -n "$(type -p apt-get)" ]; then
        mkdir -p "$target/libdrm"
        (cd "$target/libdrm" && apt-get download -qq libdrm-dev && dpkg -x libdrm-dev_*.deb .) >&2 || true
    fi
    cc -shared -fPIC -O1 -Wall -I"$headers" -I"$headers/libdrm" -o "$temporary/$1.so" "$here/fake/$1.c" -ldl >&2
}

intel() {
    vulkan 'intel_icd*.json' || { skip 'Intel (mesa-vulkan-drivers)' && return; }
    node i915 || { skip 'Intel (a C compiler, libdrm-dev)' && return; }
    for chip in tigerlake a770; do
        FAKE_CHIP=$chip LD_PRELOAD=$temporary/i915.so table intel
    done
    [ -n "${MARGIN_SOFTMAX_MESA-}" ] || return 0
    other_mesa libvulkan_intel.so
    for chip in tigerlake a770; do
        FAKE_CHIP=$chip LD_PRELOAD=$temporary/i915.so table intel
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
        table nvidia "$chip"
    done
}

[ ${#compilers[@]} != 0 ] || compilers=(amd nvidia intel)
cargo build --release --quiet --locked --manifest-path "$here/Cargo.toml" --target-dir "$target"
for compiler in "${compilers[@]}"; do
    case $compiler in
        amd | nvidia | intel) ("$compiler" && exit $failed) || failed=1 ;;
        *) echo "no compiler \`$compiler\`: amd, nvidia, intel" >&2 && exit 2 ;;
    esac
done
exit $failed
