#!/usr/bin/env bash
# Make .venv beside this checkout and install the package into it with the extras given, when either has changed:
# a wheel that is built here, or the one that WHEEL names. CONTRIBUTING.md says how to install it for editing.
# Usage: source scripts/setup.sh EXTRAS
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
stamp=.venv/.installed-$1
changed=$(find pyproject.toml tvm_sphinx ${WHEEL:+"$WHEEL"} -type f ! -name '*.so' ! -name '*.pyc' -newer "$stamp" -print -quit 2> /dev/null || echo all)
if [ ! -e "$stamp" ] || [ -n "$changed" ]; then
  [ -e .venv/bin/python ] || python3 -m venv .venv
  pip=".venv/bin/python -m pip --quiet --disable-pip-version-check"
  if [ -z "${WHEEL:-}" ]; then
    rm -rf .venv/wheel
    $pip wheel --no-deps --wheel-dir .venv/wheel .
  fi
  wheel=${WHEEL:-$(echo .venv/wheel/*.whl)}
  # The same version may hold other code: install it whatever is there, then what it needs and lacks.
  $pip install --force-reinstall --no-deps "$wheel"
  $pip install "$wheel[$1]"
  touch "$stamp"
fi
