"""Sandboxes as containers of a Docker Engine, under any OCI runtime it has."""

from ringfence.backends.docker.backend import DockerBackend
from ringfence.backends.docker.instance import DockerInstance

__all__ = ["DockerBackend", "DockerInstance"]
