"""``python -m mrirecon.cli``."""

import sys

from .main import main

sys.exit(main())
