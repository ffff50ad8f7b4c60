#!/usr/bin/env bash
# Keeps a baseline of the solar-cell bundle, then judges two pull requests: one that changes nothing, one that is slower.
set -euo pipefail
cd "$(dirname "$0")/../.."
edgeft=${EDGEFT:-.venv/bin/edgeft}
bundle=samples/solar_cells/dist/solar-cells
[ -d "$bundle" ] || { echo "$bundle is missing: make demo" >&2; exit 2; }
float=$(find samples/solar_cells/.edgeft -path '*candidates/fp32/model.onnx' | head -n 1)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "== main: keep a baseline of what ships"
"$edgeft" bench "$bundle/model.onnx" --save-baseline "$work/baseline.json"

echo "== pull request 1: nothing changed"
"$edgeft" compare "$work/baseline.json" "$bundle/model.onnx" --max-slowdown 25%

echo "== pull request 2: the float model ships"
code=0
"$edgeft" compare "$work/baseline.json" "$float" --max-slowdown 25% \
  --junit "$work/gate.xml" --summary "$work/gate.md" --github || code=$?
cat "$work/gate.md"
echo "exit code $code"
[ "$code" -eq 6 ]
