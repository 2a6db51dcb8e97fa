#!/usr/bin/env bash
# Make .venv beside this checkout and install the package into it with the extras given, once.
# Usage: source scripts/setup.sh EXTRAS
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
stamp=.venv/.installed-$1
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ] || [ -n "$(find tvm_sphinx \( -name '*.c' -o -name '*.h' \) -newer "$stamp")" ]; then
  [ -e .venv/bin/python ] || python3 -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[$1]"
  touch "$stamp"
fi
