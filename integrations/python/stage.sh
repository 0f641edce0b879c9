#!/usr/bin/env bash
# Builds the native half with cargo and lays the package out under target/python, to be imported from there:
#
#   integrations/python/stage.sh && PYTHONPATH=target/python python3 …
#
# A user installs it with pip instead; this needs neither maturin nor a virtual environment.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
cargo build --release --locked -p margin-softmax-python
mkdir -p "$target/python"
rm -rf "$target/python/margin_softmax"
cp -r integrations/python/python/margin_softmax "$target/python/"
native=$target/release/libmargin_softmax_native
for library in "$native.so" "$native.dylib"; do
    # a new file, so that a process that has the old one loaded keeps it
    [ ! -e "$library" ] || install "$library" "$target/python/margin_softmax/_native.abi3.so"
done
