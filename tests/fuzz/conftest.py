"""The fuzz tests use the bricks of the hostile archives."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "decompress"))
