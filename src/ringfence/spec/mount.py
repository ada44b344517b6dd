"""What of the host a sandbox sees besides its image."""

from typing import Literal

from pydantic import field_validator

from ringfence.spec.model import Model, check_inside_path, check_text


class Mount(Model):
    """A directory or file of the host, bound into the sandbox.

    source: path on the host, made absolute. destination: absolute path inside.
    """

    source: str
    destination: str
    read_only: bool = True

    @field_validator("source")
    @classmethod
    def _source(cls, value: str) -> str:
        return check_text(value, "source")

    @field_validator("destination")
    @classmethod
    def _destination(cls, value: str) -> str:
        return _not_a_system_directory(check_inside_path(value, "destination"))


class Repository(Model):
    """The directory tree the task works on.

    path: directory on the host. mode: "ro" binds it read-only. mount_point: where it appears.
    """

    path: str
    mode: Literal["ro"] = "ro"
    mount_point: str = "/workspace"

    @field_validator("path")
    @classmethod
    def _path(cls, value: str) -> str:
        return check_text(value, "path")

    @field_validator("mount_point")
    @classmethod
    def _mount_point(cls, value: str) -> str:
        return _not_a_system_directory(check_inside_path(value, "mount_point"))


def _not_a_system_directory(value: str) -> str:
    if value in ("/", "/bin", "/sbin", "/lib", "/lib64", "/usr", "/etc", "/run", "/tmp"):  # noqa: S108 - a name inside the sandbox
        raise ValueError("choose a directory of its own, such as /workspace or /data")
    return value
