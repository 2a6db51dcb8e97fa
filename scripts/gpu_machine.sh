#!/usr/bin/env bash
# Check and measure on a machine with an NVIDIA GPU that reaches no registry.
#
#   scripts/gpu_machine.sh pack OUT [PYTHON]   Here: put TVM and this package's C extensions, built for PYTHON
#                                              (python3.12), into OUT. The first time, packing TVM's compiler
#                                              library from 259 MB to 58 takes ten minutes of one core; it is
#                                              kept in CACHE.
#   scripts/gpu_machine.sh run [SECONDS]       There, in a copy of this tree: unpack KIT, look around, probe,
#                                              check, measure. Ends within SECONDS. Each result is in $OUT when
#                                              it is known.
#   scripts/gpu_machine.sh libraries [SECONDS] There: unpack KIT, and measure the products of BERT and ViT by our
#                                              kernels and by cuBLASLt, each of which is checked first; then the
#                                              tests of libraries.
#   scripts/gpu_machine.sh cores [SECONDS]     There: unpack KIT, and measure models on the CPU alone, on all of
#                                              its cores, beside ONNX Runtime.
#
# There: Python as in PYTHON, with numpy, psutil, cloudpickle, ml_dtypes, torch, onnx, onnxruntime, onnxscript,
# torchvision, timm, transformers, pytest and hypothesis; nvcc, gcc, NVIDIA's driver.
# Environment of run: KIT (gpu-kit), OUT (out/gpu), SITE (where to unpack), WORK (logs, records); TESTS, CHECKS,
# MODELS, LATENCY_MODELS (which; the last two may be empty); TURN (seconds that a model is measured at most). Of
# libraries: MODELS (gelu bert_base vit_b16; small is quick).
# FAKE=1 takes the fake GPU and, where there is no KIT, the installed TVM.
set -euo pipefail
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tvm=0.27.0.post1 ffi=0.1.14.post1

# Of the C that the kit's extensions were built from.
sources_hash() { (cd "$1" && find tvm_sphinx -name '*.[ch]' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum) | sha256sum; }

pack() {
  local out python cache work
  out=$(mkdir -p "$1" && readlink -f "$1") python=${2:-python3.12}
  cache=${CACHE:-$HOME/.cache/sphinx-gpu-kit} work=$(mktemp -d)
  trap "rm -rf '$work'" EXIT # the function's variables are gone by then
  mkdir -p "$cache/wheels" "$work/source" "$work/site"
  for wanted in apache-tvm==$tvm apache-tvm-ffi==$ffi; do
    "$python" -m pip download -q --no-deps --only-binary=:all: --find-links "$cache/wheels" -d "$cache/wheels" $wanted
  done
  # The extensions of the tree as it is, built outside of it.
  (cd "$tree" && git ls-files -z --cached --others --exclude-standard |
    tar -c --null --ignore-failed-read -T - 2> "$work/missing") | tar -x -C "$work/source"
  sources_hash "$work/source" > "$out/sources.sha256"
  "$python" -m pip wheel -q --no-deps -w "$work/own" "$work/source"
  for wheel in "$cache"/wheels/apache_tvm-$tvm-*.whl "$cache"/wheels/apache_tvm_ffi-$ffi-cp*.whl; do
    "$python" -m zipfile -e "$wheel" "$work/site"
  done
  "$python" -m zipfile -e "$work"/own/*.whl "$work/own/plain"
  if [ ! -e "$cache/libtvm_compiler-$tvm.xz" ]; then
    # x86's branch filter and a large dictionary.
    nice -n 15 xz --x86 --lzma2=preset=9e,dict=256MiB -T1 -c "$work/site/tvm/lib/libtvm_compiler.so" > "$cache/part"
    mv "$cache/part" "$cache/libtvm_compiler-$tvm.xz"
  fi
  cp "$cache/libtvm_compiler-$tvm.xz" "$out/libtvm_compiler.so.xz"
  (cd "$work/own/plain" && find tvm_sphinx -name '*.so' | tar -c -T -) | tar -x -C "$work/site"
  cd "$work/site"
  # With the tree it has to stay below 64 MiB.
  rm -rf tvm/lib/libtvm_compiler.so {tvm,tvm_ffi}/{3rdparty,web,include,src,cmake,lib64,share} \
    tvm_ffi/lib/*_testing.so tvm/relax/frontend/{tflite,stablehlo} ./*.dist-info/RECORD
  tar -c --owner=0 --group=0 --sort=name . | xz --x86 --lzma2=preset=9 -T1 > "$out/site.tar.xz"
  ls -l "$out"
}

say() { echo "[$((SECONDS - begin)) s] $*"; }
left() { echo $((limit - SECONDS + begin)); }

facts() {
  nvidia-smi || true
  "$nvcc" --version || true
  gcc --version | head -1
  python3 --version
  nproc
  lscpu | grep -E "Model name|Socket|NUMA|L[23]" || true
  python3 -m pip list 2> /dev/null | grep -iE "^(torch|numpy|triton|nvidia|cuda|onnx|timm|transformers|psutil|cloudpickle|ml.dtypes|pytest|hypothesis|xgboost)" || true
}

# The compiler library and the rest at the same time: its one stream of xz is what takes long.
unpack() {
  [ -e "$site/done" ] || python3 - "$kit" "$site" << 'P'
import lzma, shutil, sys, tarfile, threading
from pathlib import Path
kit, site = map(Path, sys.argv[1:])
site.mkdir(parents=True, exist_ok=True)
def compiler():
    with lzma.open(kit / "libtvm_compiler.so.xz") as packed, open(site / "libtvm_compiler.so", "wb") as plain:
        shutil.copyfileobj(packed, plain, 1 << 22)
thread = threading.Thread(target=compiler)
thread.start()
with tarfile.open(kit / "site.tar.xz", "r:xz") as archive:
    archive.extractall(site, filter="data")
thread.join()
(site / "libtvm_compiler.so").rename(site / "tvm/lib/libtvm_compiler.so")
(site / "done").touch()
P
  # The package is this tree; its extensions are of the kit.
  (cd "$site" && find tvm_sphinx -name '*.so' | tar -c -T -) | tar -x -C "$tree"
  [ "$(sources_hash "$tree")" = "$(cat "$kit/sources.sha256")" ] && return
  say "The kit's extensions are of other sources: pack it again. They are built here instead."
  (cd "$tree" && python3 -c "from setuptools import setup; setup()" build_ext --inplace --force -q)
}

# The tree comes before an installed package, and has no extensions of its own where it was not built.
installed_extensions() {
  local package
  package=$(PYTHONPATH="" python3 -P -c "
import importlib.util
print(importlib.util.find_spec('tvm_sphinx').submodule_search_locations[0])" 2> /dev/null) || return 0
  [ "$package" = "$tree/tvm_sphinx" ] && return
  (cd "$package/.." && find tvm_sphinx -name '*.so' | tar -c -T -) | tar -x -C "$tree"
}

probe() {
  build_probe > "$work/logs/build_probe.txt" 2>&1 || tail -3 "$work/logs/build_probe.txt"
  timeout 60 "$work/probe" "$work/probe.image" ${FAKE:+quick} > "$OUT/probe.json"
}

build_probe() {
  gcc -std=c11 -O2 -o "$work/probe" "$tree/benchmarks/gpu/probe.c" -ldl
  local capability
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2> /dev/null | head -1 | tr -d .) || true
  "$nvcc" -O3 --cubin "-arch=sm_${capability:-90}" -o "$work/probe.image" "$tree/benchmarks/gpu/probe.cu"
}

# Where libcudart.so.13 lies, which TVM's CUDA runtime asks for.
cudart_folder() {
  python3 - << 'P'
import glob, os, sysconfig
roots = [sysconfig.get_paths()["purelib"] + "/nvidia/*/lib", "/usr/local/cuda*/lib64", "/usr/local/cuda*/targets/*/lib"]
found = [file for root in roots for file in sorted(glob.glob(root + "/libcudart.so.13*"))]
print(os.path.dirname(found[0]) if found else "")
P
}

# What else comes back; what is being written may change meanwhile.
keep_files() {
  tar -czf "$work/more" -C "$work" records logs 2> /dev/null || true
  mv "$work/more" "$OUT/more.tar.gz"
}

keep_again() { while sleep 20; do keep_files; done; }

# Folders and libraries, and who keeps what comes back.
set_up() {
  begin=$SECONDS limit=${1:-540}
  kit=${KIT:-$tree/gpu-kit} site=${SITE:-${TMPDIR:-/tmp}/tvm-sphinx-site} work=${WORK:-${TMPDIR:-/tmp}/tvm-sphinx-work}
  OUT=${OUT:-$tree/out/gpu} mode=real
  mkdir -p "$OUT" "$work/records" "$work/logs"
  OUT=$(readlink -f "$OUT")
  export OUT PYTHONUNBUFFERED=1 TVM_FFI_DISABLE_TORCH_C_DLPACK=1 XDG_CACHE_HOME=$work/cache
  exec > >(tee "$OUT/log.txt") 2>&1
  keep_again > /dev/null 2>&1 &
  keeper=$!
  trap 'kill "$keeper" 2> /dev/null; keep_files' EXIT
  cd "$tree"
  export PYTHONPATH=$tree:$site:$tree/benchmarks:${PYTHONPATH:-}
  if [ -n "${FAKE:-}" ]; then
    mode=fake
    LD_LIBRARY_PATH=$(python3 -c "from tests.gpu import fake; print(fake.build())"):${LD_LIBRARY_PATH:-}
    # TVM's CUDA runtime looks for the wheels that torch brings before it looks there.
    export LD_PRELOAD="${LD_LIBRARY_PATH%%:*}/libcuda.so.1 ${LD_LIBRARY_PATH%%:*}/libcudart.so.13"
    [ -e "$kit" ] || installed_extensions
    export TVM_SPHINX_NVCC=$tree/tests/gpu/fake/nvcc TVM_SPHINX_CODE= TVM_SPHINX_CUDA_LIBRARIES=${LD_LIBRARY_PATH%%:*}
  else
    LD_LIBRARY_PATH=$(cudart_folder):/usr/local/nvidia/lib64:/usr/local/nvidia/lib:${LD_LIBRARY_PATH:-}
    command -v nvcc > /dev/null || PATH=$PATH:/usr/local/cuda/bin
    export TVM_CUDA_COMPILE_MODE=${TVM_CUDA_COMPILE_MODE:-nvcc}
  fi
  export LD_LIBRARY_PATH PATH
  nvcc=${TVM_SPHINX_NVCC:-nvcc}
}

cores() {
  set_up "$@"
  facts > "$OUT/machine.txt" 2>&1
  if [ "$mode" = real ] || [ -e "$kit" ]; then unpack; fi
  say unpacked
  # shellcheck disable=SC2086 # words are options
  timeout $(($(left) - 5)) python3 benchmarks/many_core_latency.py --out "$work/cores" --seconds $(($(left) - 15)) \
    --turn-seconds "${TURN:-60}" --sample-ms "${SAMPLE_MS:-5}" --rounds 5 --round-ms 40 \
    --measuring ${MEASURING-googlenet} ${MODELS+--models $MODELS} || say "cores: $?"
  cp "$work/cores/many_core.jsonl" "$OUT"
  tar -czf "$OUT/cores.tar.gz" -C "$work" cores
  say end
}

libraries() {
  set_up "$@"
  facts > "$OUT/machine.txt" 2>&1 &
  if [ "$mode" = real ] || [ -e "$kit" ]; then unpack; fi
  say "unpacked; LD_LIBRARY_PATH=$LD_LIBRARY_PATH"
  # shellcheck disable=SC2086 # words are models
  timeout $(($(left) * 2 / 3)) python3 benchmarks/gpu/libraries.py "$OUT/libraries.jsonl" ${MODELS:-} || say "libraries: $?"
  say measured
  timeout $(($(left) - 5)) python3 -m pytest -m gpu --gpu "$mode" ${TESTS:-tests/gpu/test_libraries.py} > "$OUT/pytest.txt" 2>&1 || say "tests: $?"
  tail -3 "$OUT/pytest.txt"
  say end
}

run() {
  set_up "$@"
  facts > "$OUT/machine.txt" 2>&1 &
  probe &
  local probe_job=$!
  if [ "$mode" = real ] || [ -e "$kit" ]; then unpack; fi
  say "unpacked; LD_LIBRARY_PATH=$LD_LIBRARY_PATH"
  wait "$probe_job" || say "probe: $?"
  say probe

  # Models are made ready beside the tests and checks, which time nothing that counts, and measured after.
  rm -f "$work/quiet"
  timeout $(($(left) - 10)) python3 benchmarks/gpu/bench.py --out "$OUT" --work "$work" --after "$work/quiet" \
    --seconds $(($(left) - 20)) --turn-seconds "${TURN:-60}" ${MODELS+--models $MODELS} &
  local bench_job=$! checks=$(($(left) / 4))
  timeout "$checks" python3 benchmarks/gpu/check.py "$OUT/check.jsonl" ${CHECKS:-} || say "check: $?"
  say "checks done"
  timeout "$checks" python3 -m pytest -m gpu --gpu "$mode" --continue-on-collection-errors ${TESTS:-tests/gpu} > "$OUT/pytest.txt" 2>&1 || say "tests: $?"
  tail -3 "$OUT/pytest.txt"
  touch "$work/quiet"
  say tested
  wait "$bench_job" || say "bench: $?"
  say measured
  local latency=${LATENCY_MODELS-googlenet bilstm}
  if [ -n "$latency" ] && [ "$(left)" -gt 60 ]; then
    timeout $(($(left) - 10)) python3 benchmarks/latency.py --models $latency \
      --platforms detect --json "$OUT/latency.json" > "$work/logs/latency.txt" 2>&1 || say "latency: $?"
    tail -20 "$work/logs/latency.txt"
  fi
  say end
}

case ${1:-} in
pack | run | cores | libraries) "$@" ;;
*)
  sed -n '2,24s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 2
  ;;
esac
