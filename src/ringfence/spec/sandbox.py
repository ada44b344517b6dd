"""The spec: everything that says what a sandbox is."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, field_validator, model_validator

from ringfence.spec.limits import Limits
from ringfence.spec.model import HostPath, Id, Model, Table, check_inside_path, check_text
from ringfence.spec.mount import Mount, Repository
from ringfence.spec.names import PROFILES, ProfileName, nearest
from ringfence.spec.network import Network
from ringfence.spec.quantity import Duration
from ringfence.spec.security import Security

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ENV_BYTES = 128 * 1024
_LABEL_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
_DIGEST = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]{16,256}")
_USER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,63}(?::[A-Za-z0-9_.][A-Za-z0-9_.-]{0,63})?")


def check_env(value: Mapping[str, str], *, any_bytes: bool = False) -> Mapping[str, str]:
    """Environment variables with POSIX names, no NUL and at most 128 KiB in all. any_bytes: as for
    `check_text`."""
    for name, text in value.items():
        if not _ENV_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a variable's name: letters, digits and _ only")
        check_text(text, name, any_bytes=any_bytes)
    if sum(len(name.encode()) + len(_bytes(text)) + 2 for name, text in value.items()) > _ENV_BYTES:
        raise ValueError(f"the variables are over {_ENV_BYTES} bytes in all")
    return value


def check_image(value: str) -> str:
    """What may be an image's reference, of at most 512 characters."""
    if not value or value != value.strip() or len(value) > 512:
        raise ValueError("an image is a reference such as python:3.12-slim")
    return check_text(value, "image")


def check_labels(value: Mapping[str, str]) -> Mapping[str, str]:
    """Labels with names of their own, not Ringfence's, and texts of at most 256 characters."""
    for name, text in value.items():
        if not _LABEL_NAME.fullmatch(name) or name.startswith("ringfence."):
            raise ValueError(f"{name!r} is not a label's name: letters, digits and ._/-")
        check_text(text, f"label {name}")
        if len(text) > 256:
            raise ValueError(f"label {name} is over 256 characters")
    return value


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


class SandboxSpec(Model):
    """One sandbox, before or after `policy.resolve` filled in what was left open.

    image: reference of the image; the docker backend needs one. backend: "auto" or a backend's
    name. profile: how much trust the task deserves. env: variables of every command, on top of
    PATH, HOME, LANG and TERM (nothing is inherited from the host). cwd: working directory of
    commands; None is the repository's mount point, else "/". user: name, uid or "uid:gid" of the
    commands; None is the image's user when that is not root, else the repository's owner when
    that is not root, else 1000. lifetime: seconds until the sandbox ends by itself, whoever is
    alive. detached: outlives its creator; needs a lifetime. snapshot: digest of a snapshot that it
    starts with. lock: path of a lock file: the image is the one that is locked there.
    idle_timeout: seconds without an exec or a file operation after which it ends.
    """

    image: str | None = None
    backend: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")] = "auto"
    profile: ProfileName = "strict"
    env: Mapping[str, str] = Field(default_factory=dict)
    cwd: str | None = None
    user: Id | None = None
    repository: Repository | None = None
    mounts: tuple[Mount, ...] = ()
    limits: Limits = Limits.model_construct()
    security: Security = Field(default_factory=Security)
    network: Network = Field(default_factory=Network)
    labels: Mapping[str, str] = Field(default_factory=dict)
    lifetime: Duration | None = None
    detached: bool = False
    snapshot: str | None = None
    lock: HostPath | None = None
    idle_timeout: Duration | None = None

    if TYPE_CHECKING:  # what a type checker lets pass: what is coerced, too

        def __init__(
            self,
            *,
            image: str | None = None,
            backend: str = "auto",
            profile: ProfileName = "strict",
            env: Mapping[str, str] = ...,
            cwd: str | PurePath | None = None,
            user: str | int | None = None,
            repository: Repository | str | os.PathLike[str] | Table | None = None,
            mounts: Sequence[Mount | Table] = (),
            limits: Limits | Table = ...,
            security: Security | Table = ...,
            network: Network | Table = ...,
            labels: Mapping[str, str] = ...,
            lifetime: float | str | None = None,
            detached: bool = False,
            snapshot: str | None = None,
            lock: str | os.PathLike[str] | None = None,
            idle_timeout: float | str | None = None,
        ) -> None: ...

    @field_validator("image")
    @classmethod
    def _image(cls, value: str | None) -> str | None:
        return None if value is None else check_image(value)

    @field_validator("env")
    @classmethod
    def _env(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        return check_env(value)

    @field_validator("cwd", mode="before")
    @classmethod
    def _cwd_text(cls, value: Any) -> Any:
        text = str(value) if isinstance(value, PurePath) else value
        if text is not None and not isinstance(text, str):
            raise ValueError("a cwd is a text or a path object")
        return text

    @field_validator("cwd")
    @classmethod
    def _cwd(cls, value: str | None) -> str | None:
        return None if value is None else check_inside_path(value, "cwd")

    @field_validator("user", mode="before")
    @classmethod
    def _user(cls, value: Any) -> Any:
        if value is None:
            return None
        return check_user(value)

    @field_validator("profile", mode="before")
    @classmethod
    def _profile(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in PROFILES:
            raise ValueError(f"no profile has that name{nearest(value, PROFILES)}")
        return value

    @field_validator("snapshot")
    @classmethod
    def _snapshot(cls, value: str | None) -> str | None:
        if value is not None and not _DIGEST.fullmatch(value):
            raise ValueError("a snapshot is named by its digest, such as sha256:1234...")
        return value

    @field_validator("lock")
    @classmethod
    def _lock(cls, value: str | None) -> str | None:
        return None if value is None else check_text(value, "lock")

    @field_validator("labels")
    @classmethod
    def _labels(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        return check_labels(value)

    @model_validator(mode="after")
    def _fields_agree(self) -> "SandboxSpec":
        if self.detached and self.lifetime is None:
            raise ValueError("a detached sandbox needs a lifetime, such as lifetime='1h'")
        taken = [mount.destination for mount in self.mounts]
        if self.repository is not None:
            taken.append(self.repository.mount_point)
        taken.extend(self.security.tmpfs)
        for place, times in Counter(taken).items():
            if times > 1:
                raise ValueError(f"two mounts at {place}")
        return self


def check_user(value: object) -> str:
    """A user as a spec has it: a name, a uid, "uid:gid" or "name:group"; numbers below 65536."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("a user is a name, a uid or 'uid:gid'")
    text = str(value)
    if not _USER.fullmatch(text):
        raise ValueError("a user is a name, a uid or 'uid:gid'")
    for part in text.split(":"):
        if part.isdigit() and int(part) > 65535:
            raise ValueError("uids and gids are below 65536")
    return text
