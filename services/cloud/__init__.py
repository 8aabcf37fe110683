"""The stages as services: object store, queues, ledger, metrics and the workers around the stage functions.

Nothing here knows a raw format or a reconstruction method.
"""
