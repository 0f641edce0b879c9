#!/bin/sh
# Builds the demo page into web/dist/demo and serves it on 127.0.0.1.
#
#   web/serve.sh [PORT]     default 8080; 0 takes a free one
#   web/serve.sh --build    only builds: the folder can then be served by anything
#
# Needs cargo with rustup (or the target wasm32-unknown-unknown), Node 20 or later, and npm for one package.
set -eu
cd "$(dirname "$0")/.."
port=8080
build=
case "${1-}" in
--build) build=only ;;
'') ;;
*[!0-9]*)
    echo "usage: web/serve.sh [--build | PORT]" >&2
    exit 2
    ;;
*) port=$1 ;;
esac

out=web/dist/demo
mkdir -p "$out/vendor" "$out/module"
cargo run --quiet --release -p web-build -- --inline web/planner --out "$out/dist"
# the page takes it from planner_wasm.js
rm "$out/dist/planner_bg.wasm"
cargo run --quiet --release -p web-build -- web/demo/wasm --out "$out"
if [ ! -f web/demo/node_modules/uplot/package.json ] || [ web/demo/package-lock.json -nt web/demo/node_modules/.package-lock.json ]; then
    npm ci --prefix web/demo --ignore-scripts --no-audit --no-fund
fi
uplot=web/demo/node_modules/uplot
cp "$uplot/dist/uPlot.esm.js" "$uplot/dist/uPlot.min.css" "$out/vendor/"
cp "$uplot/LICENSE" "$out/vendor/uPlot.LICENSE"
cp web/margin-softmax.js "$out/"
cp web/module/*.js "$out/module/"
for file in web/demo/*; do
    case $file in
    *.html | *.css | *.wgsl | *.js) cp "$file" "$out/" ;;
    esac
done
[ -n "$build" ] || exec node web/demo/serve.mjs "$out" "$port"
