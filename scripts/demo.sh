#!/usr/bin/env bash
# Set up, then schedule the demo network over two unlike CPU devices, run it, and compare with one device.
# Usage: scripts/demo.sh [PLATFORM], by default unlike-cpus
source "$(dirname "$0")/setup.sh" onnx
mkdir -p out
.venv/bin/tvm-sphinx compile inception-v1 --platform "${1:-unlike-cpus}" -o out/inception-v1.sphinx
.venv/bin/tvm-sphinx run out/inception-v1.sphinx --print-time
