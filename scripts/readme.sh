#!/usr/bin/env bash
# Run the demo, and put what it prints into README.md and when its tasks ran into docs/timeline.svg. On a quiet machine.
# Usage: scripts/readme.sh
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p out
bash scripts/demo.sh | tee out/demo.txt
.venv/bin/tvm-sphinx explain out/inception-v1.sphinx --timeline docs/timeline.svg > /dev/null
.venv/bin/python - << 'P'
import re
from pathlib import Path

printed = Path("out/demo.txt").read_text().strip()
readme = Path("README.md")
begin, end = "<!-- what scripts/demo.sh prints -->\n", "\n<!-- end -->"
block = f"{begin}```\n{printed}\n```{end}"
text, count = re.subn(f"{begin}.*?{end}", lambda _: block, readme.read_text(), flags=re.S)
assert count == 1
readme.write_text(text)
P
