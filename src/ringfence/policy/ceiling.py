"""An operator's ceiling: the most that any request on this machine may get."""

import fnmatch
import os
import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ringfence.errors import InvalidSpecError
from ringfence.spec import Limits, Rule
from ringfence.spec.model import Model, Table, Texts
from ringfence.spec.names import PROFILES, ProfileName, check_control
from ringfence.spec.paths import lies_in
from ringfence.spec.quantity import Duration
from ringfence.spec.security import check_capability

Mode = Literal["none", "proxy", "bridge"]
RepositoryMode = Literal["copy", "ro", "rw"]


class SecurityCeiling(Model):
    """The most of `Security` that may be granted.

    root: whether commands may be root. writable_root: whether the root may be written.
    capabilities: those that commands may have. seccomp_allow: syscalls that may be added; None is
    all that the profiles allow. seccomp_files: whether a request may bring a seccomp profile of
    its own. tmp_exec: whether programs may run from /tmp. devices: those that may be given.
    runtimes: those that may be chosen; None is all. allow_degraded: controls that may be missing.
    """

    root: bool = True
    writable_root: bool = True
    capabilities: tuple[str, ...] | None = None
    seccomp_allow: tuple[str, ...] | None = None
    seccomp_files: bool = True
    tmp_exec: bool = True
    devices: tuple[str, ...] | None = None
    runtimes: tuple[str, ...] | None = None
    allow_degraded: tuple[str, ...] | None = None

    if TYPE_CHECKING:  # what a type checker lets pass: lists, too

        def __init__(
            self,
            *,
            root: bool = True,
            writable_root: bool = True,
            capabilities: Texts | None = None,
            seccomp_allow: Texts | None = None,
            seccomp_files: bool = True,
            tmp_exec: bool = True,
            devices: Texts | None = None,
            runtimes: Texts | None = None,
            allow_degraded: Texts | None = None,
        ) -> None: ...

    @field_validator("capabilities")
    @classmethod
    def _capabilities(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if value is None else tuple(check_capability(name) for name in value)

    @field_validator("allow_degraded")
    @classmethod
    def _allow_degraded(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if value is None else tuple(check_control(name) for name in value)


class NetworkCeiling(Model):
    """The most of `Network` that may be granted.

    modes: those that may be asked for. allow: rules that cover every rule of a request; None is
    any. secrets, ports: whether secrets may be added and ports published.
    """

    modes: tuple[Mode, ...] = ("none", "proxy", "bridge")
    allow: tuple[Rule, ...] | None = None
    secrets: bool = True
    ports: bool = True

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            modes: tuple[Mode, ...] | list[Mode] = ...,
            allow: Sequence[Rule | str | Table] | None = None,
            secrets: bool = True,
            ports: bool = True,
        ) -> None: ...

    @field_validator("modes")
    @classmethod
    def _modes(cls, value: tuple[Mode, ...]) -> tuple[Mode, ...]:
        if "none" not in value:
            raise ValueError("a ceiling without mode 'none' denies every request")
        return value


class Ceiling(Model):
    """What no request gets more than; what is left out is not capped.

    profiles: those that may be asked for. images: patterns such as "python:*" for images; None is
    any. limits: the highest numbers (of ulimits the hard ones). lifetime, idle_timeout: seconds;
    a request that has none gets these. detached: whether sandboxes may outlive their creator.
    repository_modes: those that may be asked for. mounts: directories of the host that may be
    bound; None is those that the workspace allows. writable_mounts: whether they may be written.
    """

    profiles: Annotated[tuple[ProfileName, ...], Field(min_length=1)] = PROFILES
    images: tuple[str, ...] | None = None
    limits: Limits = Limits.model_construct()
    lifetime: Duration | None = None
    idle_timeout: Duration | None = None
    detached: bool = True
    repository_modes: tuple[RepositoryMode, ...] = ("copy", "ro", "rw")
    mounts: tuple[str, ...] | None = None
    writable_mounts: bool = True
    security: SecurityCeiling = SecurityCeiling.model_construct()
    network: NetworkCeiling = NetworkCeiling.model_construct()

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            profiles: tuple[ProfileName, ...] | list[ProfileName] = ...,
            images: Texts | None = None,
            limits: Limits | Table = ...,
            lifetime: float | str | None = None,
            idle_timeout: float | str | None = None,
            detached: bool = True,
            repository_modes: tuple[RepositoryMode, ...] | list[RepositoryMode] = ...,
            mounts: Texts | None = None,
            writable_mounts: bool = True,
            security: SecurityCeiling | Table = ...,
            network: NetworkCeiling | Table = ...,
        ) -> None: ...

    @field_validator("images")
    @classmethod
    def _images(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value == ():
            raise ValueError("an empty list denies every image: leave it out or name some")
        return value

    @field_validator("mounts")
    @classmethod
    def _mounts(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for path in value or ():
            if not path.startswith("/") or posixpath.normpath(path) != path:
                raise ValueError(f"{path!r} is not an absolute, normalised path")
        return value

    @model_validator(mode="after")
    def _numbers_leave_room(self) -> "Ceiling":
        if self.limits.memory is not None and self.limits.memory < MEMORY_MINIMUM:
            raise ValueError(
                f"limits.memory {self.limits.memory} denies every request: at least"
                f" {MEMORY_MINIMUM} bytes"
            )
        return self

    def permits_image(self, image: str) -> bool:
        """Whether a pattern of `images` matches this reference."""
        return self.images is None or any(
            fnmatch.fnmatchcase(image, pattern) for pattern in self.images
        )

    def permits_mount(self, source: str) -> bool:
        """Whether `source`, resolved by the caller, lies in one of `mounts`."""
        return self.mounts is None or any(lies_in(source, root.rstrip("/")) for root in self.mounts)


NO_CEILING = Ceiling.model_construct()
"""Caps nothing. Not validated: what that takes to build is needed for a file alone."""

VARIABLE = "RINGFENCE_CEILING"
_PLACE = Path("/etc/ringfence/ceiling.toml")

MEMORY_MINIMUM = 6 * 2**20
"""Bytes below which no engine starts a container."""


def load_ceiling(path: str | Path) -> Ceiling:
    """The ceiling in a TOML file. InvalidSpecError names the file, the field and the value."""
    import tomllib

    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        said = error.strerror or str(error)
        raise InvalidSpecError(f"ceiling {path}: {said}", op="ceiling") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidSpecError(f"ceiling {path}: {error}", op="ceiling") from None
    try:
        return Ceiling.parse(data)
    except InvalidSpecError as error:
        raise InvalidSpecError(
            f"ceiling {path}: {error}", op="ceiling", context=error.context
        ) from None


def machine_ceiling() -> Ceiling | None:
    """This machine's ceiling: the file that $RINGFENCE_CEILING names, else
    /etc/ringfence/ceiling.toml, else None. A file that is named and not there is an error.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return load_ceiling(named)
    return load_ceiling(_PLACE) if os.path.exists(_PLACE) else None  # noqa: PTH110 - every open asks
