#!/usr/bin/env bash
# What the compilers of GPUs make of the kernels, without a GPU: a table for each compiler, compared with thresholds.md. Fails
# where a threshold is not kept; ../README.md explains the columns.
#
#   benches/isa/run.sh                      every compiler whose tools are there; names those it skips
#   benches/isa/run.sh amd                  AMD alone: Mesa's RADV with its null device; seconds once built
#   benches/isa/run.sh nvidia               ptxas for sm_90 and sm_89; a minute
#   benches/isa/run.sh amd --accept         takes the values as the new thresholds
#   benches/isa/run.sh amd --only tile_64   kernels with this in their names
#   benches/isa/run.sh amd --save FOLDER    keeps the WGSL and the assembly of each kernel
#
# NVIDIA's tools are wheels from PyPI, which pip unpacks below target/ (300 MB); their licence forbids to pass them on.
#
# MARGIN_SOFTMAX_MESA: another Mesa, unpacked from Debian's mesa-vulkan-drivers by `dpkg -x`, for more chips of AMD
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

# vulkan <a pattern of the driver's file> <the tools it is part of>: sets the driver of `table`
vulkan() {
    local driver
    driver=$(compgen -G "$1" | head -n 1) || true
    [ -n "$driver" ] || { skip "$2" && return 1; }
    # the second name is for old loaders
    export VK_DRIVER_FILES=$driver VK_ICD_FILENAMES=$driver MESA_SHADER_CACHE_DISABLE=true XDG_RUNTIME_DIR=$temporary
}

amd() {
    vulkan '/usr/share/vulkan/icd.d/radeon_icd*.json' 'AMD (mesa-vulkan-drivers)' || return 0
    RADV_FORCE_FAMILY=navi21 table amd
    if [ -z "${MARGIN_SOFTMAX_MESA-}" ]; then
        skip "AMD's navi31 and gfx1201 (MARGIN_SOFTMAX_MESA)"
        return
    fi
    # the file of a driver names its library without a folder where both are installed
    local library
    library=$(compgen -G "$MARGIN_SOFTMAX_MESA/usr/lib/*/libvulkan_radeon.so")
    printf '{"file_format_version": "1.0.0", "ICD": {"library_path": "%s", "api_version": "1.3.0"}}' "$library" >"$temporary/radv.json"
    vulkan "$temporary/radv.json" ''
    for family in navi31 gfx1201; do
        LD_LIBRARY_PATH=$(dirname "$library") RADV_FORCE_FAMILY=$family table amd
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

[ ${#compilers[@]} != 0 ] || compilers=(amd nvidia)
cargo build --release --quiet --locked --manifest-path "$here/Cargo.toml" --target-dir "$target"
for compiler in "${compilers[@]}"; do
    case $compiler in
        amd | nvidia) "$compiler" ;;
        *) echo "no compiler \`$compiler\`: amd, nvidia" >&2 && exit 2 ;;
    esac
done
exit $failed
