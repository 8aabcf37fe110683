import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from cloud_world import make_world, moto, world  # noqa: F401 - fixtures
