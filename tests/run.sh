#!/usr/bin/env bash
# Every check and test, for a fresh Debian machine with Rust; installs the packages that are missing, if it may.
#
#   tests/run.sh           what CI runs
#   tests/run.sh --full    the slow parts too
#
# The GPU tests run on two software drivers, lavapipe and SwiftShader, unless VK_DRIVER_FILES names others. Missing tools are
# reported and their steps skipped; with CI=true a missing tool is an error. The first failure stops the run, except with
# --full, which goes on to the end; the last line names what failed.
set -euo pipefail
cd "$(dirname "$0")/.."

full=false
case "$*" in
    '') ;;
    --full) full=true ;;
    *) echo 'usage: tests/run.sh [--full]' >&2 && exit 2 ;;
esac

temporary=$(mktemp -d)
log=$temporary/log
current=setup
skipped=0

failed=()

finish() {
    code=$?
    rm -rf "$temporary"
    [ "$code" = 0 ] || [ ${#failed[@]} != 0 ] || failed+=("$current")
    [ ${#failed[@]} = 0 ] || printf '\nFAILED:%s\n' "$(printf ' [%s]' "${failed[@]}")"
}
trap finish EXIT

# step <name> <command...>: heading, output, time
step() {
    current=$1
    shift
    local start=$SECONDS
    printf '\n== %s\n' "$current"
    # not behind `||`, where bash would let a function go on after an error
    set +e
    (set -e && "$@") 2>&1 | tee -a "$log"
    [ "${PIPESTATUS[0]}" = 0 ] || failed+=("$current")
    set -e
    printf -- '-- %s: %d s\n' "$current" $((SECONDS - start))
    [ ${#failed[@]} = 0 ] || $full
}

skip() {
    printf '\nskipped: %s\n' "$1"
    skipped=$((skipped + 1))
}

# skip, but a failure in CI
lacking() {
    current=$1
    skip "$1"
    [ "${CI-}" != true ]
}

# ---- what the machine has

have() {
    [ -n "$(type -p "$1")" ]
}

icd() { # the first that exists
    compgen -G "$1" | head -n 1 || true
}

find_drivers() {
    loader=$(PATH=$PATH:/sbin ldconfig -p | sed -n '/libvulkan\.so\.1/p')
    lavapipe=$(icd '/usr/share/vulkan/icd.d/lvp_icd*.json')
    swiftshader=$(icd /usr/lib/chromium/vk_swiftshader_icd.json)
}

install() {
    local root=()
    [ "$(id -u)" = 0 ] || root=(sudo -n)
    have apt-get && "${root[@]}" apt-get update -qq &&
        "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null ||
        echo "could not install $*"
}

find_drivers
packages=()
[ -n "$loader" ] || packages+=(libvulkan1)
[ -n "$lavapipe" ] || packages+=(mesa-vulkan-drivers)
[ -n "$swiftshader" ] || packages+=(chromium)
have node || packages+=(nodejs)
have npm || packages+=(npm)
if [ ${#packages[@]} != 0 ]; then
    step "install ${packages[*]}" install "${packages[@]}"
    find_drivers
fi

# lavapipe complains without
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-$temporary}
adapters=()
if [ -n "${VK_DRIVER_FILES-}" ]; then
    export MARGIN_SOFTMAX_REQUIRE_GPU=1
else
    drivers=()
    if [ -n "$loader" ] && [ -n "$lavapipe" ]; then
        drivers+=("$lavapipe") adapters+=(llvmpipe)
    else
        lacking 'GPU tests on lavapipe (libvulkan1, mesa-vulkan-drivers)'
    fi
    if [ -n "$loader" ] && [ -n "$swiftshader" ]; then
        drivers+=("$swiftshader") adapters+=(SwiftShader)
    else
        lacking 'GPU tests on SwiftShader (libvulkan1, chromium)'
    fi
    if [ ${#drivers[@]} != 0 ]; then
        VK_DRIVER_FILES=$(IFS=: && echo "${drivers[*]}")
        # the second name is for old loaders
        export VK_DRIVER_FILES VK_ICD_FILENAMES=$VK_DRIVER_FILES MARGIN_SOFTMAX_REQUIRE_GPU=1
    fi
fi

# ---- the parts; all in one profile, so that a cold machine compiles the dependencies once

bare_tree() {
    cargo tree -p margin-softmax --no-default-features -e normal --prefix none --no-dedupe | sort -u >"$temporary/tree"
    if grep -E '^(wgpu|naga|rayon|gemm|pulp)' "$temporary/tree"; then
        return 1
    fi
    echo "$(wc -l <"$temporary/tree") crates, none of wgpu, rayon and gemm"
}

# a driver that does not load must not pass as one adapter fewer
every_adapter() {
    local list adapter
    list=$(cargo test --release --features serde --test gpu -- --list)
    for adapter in "${adapters[@]}"; do
        [[ $list == *"$adapter"* ]] || { echo "no trial on $adapter" && return 1; }
        echo "found $adapter"
    done
}

# a crate of its own: its tests, and the thresholds of AMD's compiler, which needs no GPU
isa() {
    cargo fmt --check --manifest-path benches/isa/Cargo.toml
    cargo test --release --locked --manifest-path benches/isa/Cargo.toml --target-dir "${CARGO_TARGET_DIR:-target}"
    benches/isa/run.sh amd
}

isa_clippy() {
    cargo clippy --release --locked --all-targets --manifest-path benches/isa/Cargo.toml \
        --target-dir "${CARGO_TARGET_DIR:-target}" -- -D warnings
}

tint() {
    npm ci --prefix tests/tint --ignore-scripts --no-audit --no-fund
    cargo run --release --features serde --example kernels >"$temporary/kernels"
    node tests/tint/check.mjs <"$temporary/kernels"
}

# rustup's target for browsers
wasm() {
    local target=wasm32-unknown-unknown
    [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ] || { have rustup && rustup target add "$target"; }
}

# the tests' page, the module, the crate in wasm, and the npm package in bundlers and Node; the planner must stay small
browser() {
    npm ci --prefix tests/browser --ignore-scripts --no-audit --no-fund
    tests/browser/node_modules/.bin/tsc --noEmit --strict --target es2022 --module nodenext --lib es2022,dom --types '' \
        tests/browser/types.mts
    cargo run --release --features serde --example browser_cases -- out/browser
    # 8,800 bytes of it are the regularisers and the center loss, ten kernels and their plans; 2,900 the checks of options
    cargo run --release -p web-build -- --inline --most 195000 web/planner
    cargo run --release -p web-build -- tests/browser/rust
    web/serve.sh --build
    node tests/browser/run.mjs
}

# first, so that most mistakes show within minutes; it also tests the build without wgpu
step 'fast loop' tests/fast.sh
step 'clippy' cargo clippy --locked --all-targets --release --features serde -- -D warnings
step 'clippy without features' cargo clippy --all-targets --release --no-default-features --features serde -- -D warnings
if wasm; then
    step 'wasm32' cargo check --release --target wasm32-unknown-unknown --no-default-features --features webgpu,serde
    step 'clippy for browsers' cargo clippy --release --target wasm32-unknown-unknown \
        -p margin-softmax-planner -p margin-softmax-demo -p margin-softmax-browser-tests -- -D warnings
    step 'clippy of web-build' cargo clippy --release -p web-build -- -D warnings
else
    lacking 'wasm32 (rustup target add wasm32-unknown-unknown)'
fi
step 'documentation' env RUSTDOCFLAGS='-D warnings' cargo doc --release --no-deps --features safetensors
step 'documentation without features' env RUSTDOCFLAGS='-D warnings' cargo doc --release --no-deps --no-default-features
step 'build without features' cargo build --release --no-default-features
step 'dependencies without features' bare_tree
step 'build the tests' cargo test --no-run --release --features serde
[ ${#adapters[@]} = 0 ] || step 'adapters' every_adapter
step 'tests' cargo test --release --features serde
for adapter in "${adapters[@]}"; do
    step "the caller's device, $adapter" cargo run --release --features serde --example your_device -- "$adapter"
done
step 'compilers of GPUs: AMD' isa
if have node && have npm; then
    step 'Tint' tint
else
    lacking 'Tint (nodejs, npm)'
fi

if have node && have npm && have chromium && wasm; then
    step 'browser' browser
else
    lacking 'browser (nodejs, npm, chromium, wasm32-unknown-unknown)'
fi

# a Python that has PyTorch, numpy and pytest: the first in PATH, or Debian's
python_with_torch() {
    local python
    for python in python3 /usr/bin/python3; do
        "$python" -c 'import numpy, pytest, torch' 2>/dev/null && echo "$python" && return
    done
    return 1
}

# the Python package from a folder, without pip; then its example, which compares two heads step by step
python_package() {
    integrations/python/stage.sh
    export PYTHONPATH=${CARGO_TARGET_DIR:-target}/python PYTHONDONTWRITEBYTECODE=1
    "$1" -m pytest -q -p no:cacheprovider integrations/python/tests
    "$1" integrations/python/examples/digits.py
}

if ! python_with_torch >/dev/null; then
    step 'install python3-torch' install python3-torch python3-numpy python3-pytest
fi
if python=$(python_with_torch); then
    step 'Python' python_package "$python"
    step 'clippy of the Python package' cargo clippy --release --locked -p margin-softmax-python -- -D warnings
else
    lacking 'Python (python3-torch, python3-numpy, python3-pytest)'
fi

# the crates as they would be published; tests/host/package.rs compares their lists of files with the rule
package() {
    cargo package --no-verify --allow-dirty -p margin-softmax -p margin-softmax-burn
}
step 'package' package

# packed <crate> <cargo arguments>: built from the packed files alone, with the dependencies that are there already
packed() {
    local name=$1 version root=$PWD
    shift
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
    tar -xzf "target/package/$name-$version.crate" -C "$temporary"
    (cd "$temporary/$name-$version" && cargo "$@" --target-dir "$root/target")
}

# the package as a user installs it, with the current PyTorch, whose torch.compile goes around a head
python_by_pip() {
    local root tests=$PWD/integrations/python/tests
    root=$(realpath -m "${CARGO_TARGET_DIR:-target}")/python-venv
    python3 -m venv --clear "$root"
    "$root/bin/pip" install --quiet --disable-pip-version-check ./integrations/python torch pytest ml_dtypes
    # from a folder in which nothing but the installed package has this name
    cd "$temporary"
    "$root/bin/python" -m pytest -q -p no:cacheprovider "$tests"
}

# `+nightly` and the like need rustup
toolchain() {
    have rustup && rustup toolchain list | grep "^$1" >/dev/null
}

minimum_rust() {
    sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml
}

# the whole workspace; then the library's own tree, in which nothing may stand twice
deny() {
    cargo deny --workspace check --hide-inclusion-graph licenses bans sources
    cargo deny --exclude-dev check --hide-inclusion-graph --deny duplicate bans
}

# one of 48 parts, another one every day
mutants_shard() {
    echo $((10#$(date -u +%j) % 48))/48
}

# the standard library's, which is compiled again for threads in wasm
sources() {
    toolchain nightly && rustup component list --toolchain nightly --installed | grep -x rust-src >/dev/null
}

# beside the builds of the step `browser`
threads() {
    cargo run --release -p web-build -- --threads --features threads --out web/dist/threads tests/browser/rust
    node tests/browser/run.mjs 'threads have the bits'
}

# the readings of the collapse test made anew, by the experiments as they are run by hand
collapse() {
    local experiment files=()
    for experiment in "$@"; do
        files+=("$temporary/$experiment.jsonl")
        cargo run --release --features serde --example "$experiment" -- --out "$temporary/$experiment" --readings "${files[-1]}" \
            $([ "$experiment" != uci ] || echo '--only collapse') >/dev/null
    done
    tests/collapse/pack.py "${files[@]}" >"$temporary/readings.json.gz"
    MARGIN_SOFTMAX_READINGS=$temporary/readings.json.gz cargo test --release --features serde --test collapse
}

miri() {
    (cd tests/miri && cargo +nightly miri test)
}

if $full; then
    export MARGIN_SOFTMAX_FULL=1
    step 'soak' cargo test --release --features serde --test soak
    # trials by the folder that they are in
    step 'determinism' cargo test --release --features serde --test gpu -- determinism::
    step 'stress' cargo test --release --features serde --test gpu -- stress::
    images=/usr/share/datasets/fashion-mnist
    [ -d "$images" ] || step 'install dataset-fashion-mnist' install dataset-fashion-mnist
    if [ -d "$images" ]; then
        step 'collapse, trained anew' collapse margins speakers uci images
    else
        skip 'collapse, trained anew (dataset-fashion-mnist)'
    fi
    step 'clippy of matrix units' cargo clippy --release --all-targets --features serde,cooperative_matrix -- -D warnings
    step 'shaders of matrix units' cargo test --release --features serde,cooperative_matrix --test shaders
    step 'a newer Mesa' tests/newer_mesa.sh
    step 'benches build' cargo bench --no-run --features serde
    step 'clippy of benches/isa' isa_clippy
    step 'compilers of GPUs: the others' benches/isa/run.sh nvidia intel mobile
    if python3 -c 'import ensurepip, venv' 2>/dev/null && python3 -m pip download --quiet --no-deps -d "$temporary" maturin 2>/dev/null; then
        step 'Python by pip, with the current PyTorch' python_by_pip
    else
        skip 'Python by pip (python3-venv, and an index that pip reaches)'
    fi
    step 'package: documentation tests' packed margin-softmax test --doc --release --features serde
    if toolchain "$(minimum_rust)"; then
        step "Rust $(minimum_rust)" cargo "+$(minimum_rust)" check --release --features safetensors
    else
        skip "the minimum Rust version (rustup toolchain install $(minimum_rust))"
    fi
    if have cargo-hack; then
        step 'cargo hack' cargo hack check --release --feature-powerset --depth 2 --exclude-features default
    else
        skip 'cargo hack (cargo install cargo-hack)'
    fi
    if have cargo-deny; then
        step 'cargo deny' deny
        if cargo deny fetch db >/dev/null 2>&1; then
            step 'cargo deny: advisories' cargo deny --workspace check --hide-inclusion-graph advisories
        else
            skip 'cargo deny: advisories (the database cannot be reached)'
        fi
    else
        skip 'cargo deny (cargo install cargo-deny)'
    fi
    if toolchain nightly && cargo +nightly miri --version >/dev/null 2>&1; then
        step 'Miri' miri
    else
        skip 'Miri (rustup component add --toolchain nightly miri rust-src)'
    fi
    if have node && have npm && have chromium && wasm && sources; then
        step 'browser: threads' threads
    else
        skip 'browser: threads (rustup toolchain install nightly --component rust-src; nodejs, npm, chromium)'
    fi
    if toolchain nightly && have cargo-fuzz; then
        step 'fuzzing' tests/fuzz/run.sh 30
    else
        skip 'fuzzing (rustup toolchain install nightly; cargo install cargo-fuzz)'
    fi
    if have cargo-mutants && have cargo-nextest; then
        step "mutants ($(mutants_shard))" cargo mutants --shard "$(mutants_shard)" --sharding round-robin -o "$temporary"
    else
        skip 'mutants (cargo install cargo-mutants cargo-nextest)'
    fi
fi

# its display is a line per batch
burn_example() {
    cargo run -p margin-softmax-burn --profile burn --example digits | tail -n 20
}

# burn: three hundred crates in a profile of their own, so after everything else
if $full || [ "${CI-}" = true ]; then
    if [ ${#adapters[@]} = 0 ] && [ -z "${VK_DRIVER_FILES-}" ]; then
        skip 'burn (no adapter)'
    else
        step 'burn' cargo test -p margin-softmax-burn --profile burn
        step 'burn: an example' burn_example
    fi
fi

if $full; then
    step 'laws' cargo test --release --features serde --test gpu -- every_law
    step 'long sums' cargo test --release --features serde --test cpu --test gpu -- sums_over
fi

# cargo's `test result` lines, Tint's, and pytest's
current=total
# parts of a step that lacked their tools
skipped=$((skipped + $(grep -c '^skipped: ' "$log" || true)))
printf '\n%d s\n' "$SECONDS"
sed -nE -e 's/^(test result: .*\. )?([0-9]+) passed[;,] ([0-9]+) failed(; ([0-9]+) ignored.*)?$/\2 \3 \5/p' \
    -e 's/^([0-9]+) passed(, ([0-9]+) skipped)?(, [0-9]+ warnings?)? in [0-9.]+s.*$/\1 0 \3/p' "$log" |
    awk -v s="$skipped" '{ p += $1; f += $2; s += $3 } END { printf "%d passed, %d failed, %d skipped\n", p, f, s }'
[ ${#failed[@]} = 0 ]
