"""``python -m tvm_sphinx`` is the command ``tvm-sphinx``."""

import sys

from .cli import main

sys.exit(main())
