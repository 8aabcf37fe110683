"""An emulated cloud on one machine: ``make deploy-local`` and ``make cloud-demo``."""
