"""What all sides agree on: codes, ids, keys, messages, names. Standard library only.

Imported by the workers, the Lambdas (copied into their assets), the infrastructure code and the
simulator, so nothing here may import anything but the standard library.
"""
