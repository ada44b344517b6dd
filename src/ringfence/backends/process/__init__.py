"""Sandboxes as processes of this machine in namespaces of their own."""

from ringfence.backends.process.backend import ProcessBackend
from ringfence.backends.process.instance import ProcessInstance

__all__ = ["ProcessBackend", "ProcessInstance"]
