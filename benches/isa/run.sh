#!/usr/bin/env bash
# What the compilers of GPUs make of the kernels, without a GPU: a table for each compiler, compared with thresholds.md. Fails
# where a threshold is not kept; ../README.md explains the columns.
#
#   benches/isa/run.sh                      every compiler that is there
#   benches/isa/run.sh amd                  AMD alone: Mesa's RADV with its null device; seconds once built
#   benches/isa/run.sh amd --accept         takes the values as the new thresholds
#   benches/isa/run.sh amd --only tile_64   kernels with this in their names
#   benches/isa/run.sh amd --save FOLDER    keeps the WGSL and the assembly of each kernel
#
# MARGIN_SOFTMAX_MESA: a folder with another Mesa, unpacked from its Debian package, for more chips of AMD
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
[ ${#compilers[@]} != 0 ] || compilers=(amd)
options=("$@")

cargo build --release --quiet --locked --manifest-path "$here/Cargo.toml" --target-dir "$target"

# compile <compiler> <drivers' file> <variables...>: the table of a Vulkan driver
vulkan() {
    local compiler=$1 driver=$2
    shift 2
    env "$@" VK_DRIVER_FILES="$driver" VK_ICD_FILENAMES="$driver" MESA_SHADER_CACHE_DISABLE=true XDG_RUNTIME_DIR="$temporary" \
        "$target/release/margin-softmax-isa" "$compiler" "${options[@]}"
}

amd() {
    local driver family
    driver=$(compgen -G '/usr/share/vulkan/icd.d/radeon_icd*.json' | head -n 1)
    vulkan amd "$driver" RADV_FORCE_FAMILY=navi21
}

for compiler in "${compilers[@]}"; do
    "$compiler"
done
