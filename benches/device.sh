#!/usr/bin/env bash
# The measurements of a GPU on a machine that has nothing but its driver, in at most 8 minutes.
#
#   benches/device.sh pack FOLDER             builds here and gathers in FOLDER (64 MiB at most) what that machine needs
#   FOLDER/device.sh OUT [options]            there: measures, and writes at most 6 files into the folder OUT
#   benches/device.sh run FOLDER OUT [options]        the same
#
#   --adapter NAME    a part of the adapter's name; the first hardware adapter if absent, else a software one
#   --shape NxCxD     these instead of A, B and 10^6 classes; can be given several times
#   --seconds S       for all (480): what no time is left for is skipped by name
#   --carried         takes the carried libraries, the system's own or not
#
# In this order: the probe; the head at A with every preset and tile, keep and recompute, by kernel; a short list of trials
# of the GPU tests; B; PyTorch (f32, TF32, bf16) beside the head at A and B where PEERS_PYTHON, else python3, has torch with
# CUDA, numpy and tqdm; the same at 10^6 classes. OUT gets probe.json, gpu.json, peers.json, log.txt and, of all of them,
# device.json and table.md, which name what fell short of the aims and what was skipped. Ends with 1 where a trial or a part
# failed; an aim that was missed is no failure.
set -euo pipefail

fail() {
    echo "device.sh: $1" >&2
    exit 2
}

# ---- here

# what drivers and the loader open; a system that has its own keeps it
libraries='libvulkan.so.1 libGLdispatch.so.0 libGLX.so.0 libEGL.so.1 libX11.so.6 libXext.so.6 libxcb.so.1 libXau.so.6
    libXdmcp.so.6 libbsd.so.0 libmd.so.0'

cached() { # the path of a library, or nothing
    PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | awk -v name="$1" '$1 == name && /x86-64/ { print $NF; exit }'
}

pack() {
    local folder=$1 built kind name path
    mkdir -p "$folder"
    folder=$(cd "$folder" && pwd)
    cd "$(dirname "$0")/.."
    mkdir -p "$folder"/{bin,lib,benches/peers,target/release/examples}
    built=$(cargo build --release --features serde --bench probe --bench gpu --bench device --test gpu --example time_head \
        --message-format=json-render-diagnostics |
        sed -nE 's/.*"target":\{"kind":\["(bench|test|example)"\].*"name":"([a-z_]+)".*"executable":"([^"]+)".*/\1 \2 \3/p')
    while read -r kind name path; do
        case $kind in
            bench) strip -o "$folder/bin/$name" "$path" ;;
            test) strip -o "$folder/bin/trials" "$path" ;;
            example) strip -o "$folder/target/release/examples/$name" "$path" ;;
        esac
    done <<<"$built"
    for name in $libraries; do
        path=$(cached "$name")
        [ -z "$path" ] || cp -L "$path" "$folder/lib/$name"
    done
    [ -e "$folder/lib/libvulkan.so.1" ] || fail 'no libvulkan.so.1 here: install libvulkan1'
    cp benches/peers/{compare,heads}.py "$folder/benches/peers"
    cp benches/device.sh "$folder"
    path=$(du -sm "$folder" | cut -f1)
    echo "$folder: $path MiB"
    [ "$path" -le 64 ] || fail 'more than 64 MiB'
}

# ---- there

notes=()
note() {
    echo "-- $1"
    notes+=(--note "$1")
}

failed=false

at_most() { # of these seconds, those that are left before the report; never 0, which is no limit for timeout
    local left=$((total - SECONDS - 10))
    echo $((left < 1 ? 1 : left < $1 ? left : $1))
}

# part <name> <most seconds> <command...>: within what is left; LIMIT in the command becomes the seconds it gets
part() {
    local name=$1 limit code=0 start=$SECONDS
    limit=$(at_most "$2")
    shift 2
    if [ $limit -lt 5 ]; then
        note "skipped: $name: no time left of --seconds $total"
        return 0
    fi
    echo
    echo "== $name (at most $limit s)"
    timeout -k 2 $limit "${@//LIMIT/$((limit * 9 / 10))}" || code=$?
    printf '\n-- %s: %d s\n' "$name" $((SECONDS - start))
    case $code in
        0) ;;
        124 | 137) note "cut off after $limit s: $name" ;;
        *) failed=true && note "FAILED: $name ($code)" ;;
    esac
    return 0
}

head_at() {
    part "head at $1" "$2" "$here/bin/gpu" --adapter "$adapter" --shape "$1" --element f32 --presets --memory 65536 \
        --seconds 1 --limit LIMIT
}

torch_at() {
    [ -n "$python" ] || return 0
    part "PyTorch at $1" "$2" "$python" "$here/benches/peers/compare.py" --adapter "$short" --shapes "$1" \
        --rounds "$3" --pause 0.1 --threads "$(nproc)" --peers 'crate gpu keep,torch-cuda$,torch-cuda-tf32,torch-cuda-bf16'
}

find_torch() {
    python=${PEERS_PYTHON:-python3}
    local check='import numpy, torch, tqdm; assert torch.cuda.is_available(), "torch sees no CUDA GPU"'
    local why
    if ! why=$(timeout "$(at_most 60)" "$python" -c "$check" 2>&1); then
        why=$(tail -n 1 <<<"$why")
        note "skipped: PyTorch: ${why:-no time for its check}"
        python=
    fi
}

# a short list, beginnings of names: every tile, shards, chunks, edges, reruns; those that compile the fewest kernels first
trials='bad_rows_are_nan_and_do_not_spoil_others gathered_prototypes_are_those_of_their_classes
    every_kernel_has_a_time_and_the_same_result finite_inputs_give_finite_gradients
    agrees_with_the_reference::margins:: the_pieces_make_a_head chunks_and_shards_agree_with_one_chunk
    fewer_rows_than_planned agrees_with_the_reference::large::tile_128 agrees_with_the_reference::arcface::
    determinism::reruns_give_the_same_bits::tile_64 shards_agree_with_the_whole_head cosines_agree_with_the_reference
    sums_over_very_many_classes_keep_their_digits monitored_batches_agree_with_the_reference
    agrees_with_the_reference::arcface_topk::'

agreement() {
    local end=$((SECONDS + $(at_most "$1"))) name list found before count=0 passed=0 late=()
    list=$(timeout "$(at_most 30)" "$here/bin/trials" --list 2>/dev/null | sed -n 's/: test$//p' || true)
    for name in $trials; do
        mapfile -t found < <(grep -F "$short::$name" <<<"$list")
        if [ ${#found[@]} = 0 ]; then
            failed=true && note "FAILED: trials $name: there are none"
        fi
        for name in "${found[@]}"; do
            count=$((count + 1))
            if [ $((SECONDS + 5)) -gt $end ]; then
                late+=("${name#*::}")
            else
                before=${#notes[@]}
                part "trial ${name#*::}" 20 "$here/bin/trials" --exact "$name"
                passed=$((passed + (${#notes[@]} == before)))
            fi
        done
    done
    note "trials: $passed of $count passed"
    [ ${#late[@]} = 0 ] || note "skipped: trials, no time left: ${late[*]}"
}

# the libraries that the system lacks; the driver's manifest where no loader looks
find_driver() {
    local name manifest=/usr/local/nvidia/share/vulkan/icd.d/nvidia_icd.json
    mkdir "$temporary/lib"
    for name in $libraries; do
        [ ! -e "$here/lib/$name" ] || { ! $carried && [ -n "$(cached "$name")" ]; } || ln -s "$here/lib/$name" "$temporary/lib"
    done
    export LD_LIBRARY_PATH=$temporary/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    echo "carried libraries in use: $(ls "$temporary/lib" | tr '\n' ' ')"
    [ -n "${VK_DRIVER_FILES-}" ] || [ ! -e $manifest ] || export VK_DRIVER_FILES=$manifest
}

measure() {
    local shape shapes=("${given[@]}")
    find_driver
    part probe 45 "$here/bin/probe" ${adapter:+--adapter "$adapter"}
    # hardware comes first
    adapter=$(sed -nE '/"adapter"/{s/.*"adapter":"([^"]+)".*/\1/p;q}' "$out/probe.json" 2>/dev/null || true)
    if [ -z "$adapter" ]; then
        note 'FAILED: no adapter was measured'
        return 1
    fi
    short=${adapter%% (*}
    [ ${#shapes[@]} != 0 ] || shapes=(512x85742x512 256x5994x192 1024x1000000x512)
    head_at "${shapes[0]}" 75
    agreement 90
    find_torch
    for shape in "${shapes[@]:1:1}"; do
        head_at "$shape" 45
    done
    for shape in "${shapes[@]:0:2}"; do
        torch_at "$shape" 75 10
    done
    for shape in "${shapes[@]:2}"; do
        head_at "$shape" 120
        torch_at "$shape" 90 3
    done
    "$here/bin/device" --adapter "$adapter" "${notes[@]}"
    ! $failed
}

run() {
    here=$(cd "$1" && pwd)
    [ -x "$here/bin/gpu" ] || fail "$here is no packed folder"
    mkdir -p "$2"
    out=$(cd "$2" && pwd)
    shift 2
    adapter='' given=() total=480 carried=false
    while [ $# != 0 ]; do
        case $1 in
            --adapter) adapter=${2?--adapter needs a name} && shift ;;
            --shape) given+=("${2?--shape needs NxCxD}") && shift ;;
            --seconds) total=${2?--seconds needs a number} && shift ;;
            --carried) carried=true ;;
            *) fail "no option is called $1" ;;
        esac
        shift
    done
    rm -f "$out"/{probe,gpu,peers,device}.json "$out/table.md"
    temporary=$(mktemp -d)
    trap 'rm -rf "$temporary"' EXIT
    export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-$temporary} # else drivers complain
    export MARGIN_SOFTMAX_RESULTS=$out MARGIN_SOFTMAX_REQUIRE_GPU=1
    measure 2>&1 | tee "$out/log.txt"
}

case ${1-} in
    pack) [ $# = 2 ] || fail 'pack FOLDER' && pack "$2" ;;
    run) [ $# -ge 3 ] || fail 'run FOLDER OUT' && run "${@:2}" ;;
    '' | -*) sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0" ;;
    *) run "$(dirname "$0")" "$@" ;;
esac
