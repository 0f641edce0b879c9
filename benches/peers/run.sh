#!/usr/bin/env bash
# This crate beside numpy, PyTorch, JAX and burn: the same head, step by step in turn. See benches/README.md.
#
#   benches/peers/run.sh                        every shape, 10 rounds; some minutes a shape
#   benches/peers/run.sh --shapes small,B       small, B, A1, A, million, or any NxCxD
#   benches/peers/run.sh --quick                the small shape, three rounds, no file
#   benches/peers/run.sh --sweep                time and workspace over the number of classes
#   benches/peers/run.sh --nearest              the nearest classes beside faiss and numpy (--help after it: its options)
#   benches/peers/run.sh --help                 all options
#
# Python packages go into target/peers-venv, or set PEERS_PYTHON to a Python that has them. burn takes over 20 minutes to
# compile on two cores: PEERS_BURN=no leaves it out. Missing parts are reported, and the run goes on without them.
# Results: benches/results/*.json, and from them pictures/*.svg.
set -euo pipefail
cd "$(dirname "$0")/../.."

say() {
    printf '== %s\n' "$1" >&2
}

python=${PEERS_PYTHON-}
if [ -z "$python" ]; then
    python=target/peers-venv/bin/python
    say 'Python packages: target/peers-venv'
    [ -x "$python" ] || python3 -m venv target/peers-venv
    "$python" -m pip install --quiet --disable-pip-version-check numpy tqdm matplotlib
fi

if [ "${1-}" = --nearest ]; then
    [ -n "${PEERS_PYTHON-}" ] || "$python" -m pip install --quiet --disable-pip-version-check faiss-cpu || say 'without faiss'
    exec "$python" benches/peers/nearest.py "${@:2}"
fi
if [ -z "${PEERS_PYTHON-}" ]; then
    for package in torch 'jax[cpu]'; do
        "$python" -m pip install --quiet --disable-pip-version-check "$package" || say "without $package: pip could not install it"
    done
fi

target=${CARGO_TARGET_DIR:-target}
say 'this crate'
cargo build --release --example time_head
if [ "${PEERS_BURN-}" != no ]; then
    say 'burn; over 20 minutes when it is new'
    # no link-time optimisation or other profile than a user of burn has by default
    cargo build --release --manifest-path benches/peers/burn/Cargo.toml --target-dir "$target/burn" ||
        say 'without burn: it does not build here'
fi

"$python" benches/peers/compare.py "$@"
case " $* " in
    *' --help '* | *' -h '* | *' --quick '*) ;;
    *) "$python" benches/peers/charts.py ;;
esac
