"""mrirecon: from a tar of raw k-space to images, on one machine or on AWS.

The folders below are the rooms of the house; ``docs/architecture.md`` draws them and
``tests/test_architecture.py`` holds their walls.
"""

__version__ = "0.1.0"
