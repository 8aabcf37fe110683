"""The pipeline as code: one construct a responsibility, composed into stacks by ``app.py``.

Knows the contract (names, keys, metrics) and nothing of the stages' code.
"""
