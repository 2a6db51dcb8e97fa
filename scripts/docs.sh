#!/usr/bin/env bash
# Build the documents into docs/_build/html; a warning is an error. Needs pip install -e '.[docs]'.
# Usage: scripts/docs.sh [--run]: with --run the tutorials run, for their output and pictures (some minutes)
set -euo pipefail
cd "$(dirname "$0")/.."
export RUN_TUTORIALS=0
[ "${1:-}" != --run ] || RUN_TUTORIALS=1
python=${PYTHON:-.venv/bin/python}
rm -rf docs/tutorials docs/generated docs/_build/html
"$python" -m sphinx -W --keep-going -q -b html docs docs/_build/html
echo "docs/_build/html/index.html"
