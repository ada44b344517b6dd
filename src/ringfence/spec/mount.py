"""What of the host a sandbox sees besides its image."""

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ringfence.spec.model import HostPath, Id, Model, Table, Texts, check_inside_path, check_text
from ringfence.spec.quantity import Size

_CONFIG_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*(?:\.[^\x00\n]{1,200})?\.[A-Za-z][A-Za-z0-9-]*")
_OWNER = re.compile(r"\d{1,5}(?::\d{1,5})?")


class Mount(Model):
    """A directory or file of the host, bound into the sandbox.

    source: path on the host, made absolute. destination: absolute path inside.
    """

    source: HostPath
    destination: str
    read_only: bool = True

    if TYPE_CHECKING:  # what a type checker lets pass: what is coerced, too

        def __init__(
            self, *, source: str | os.PathLike[str], destination: str, read_only: bool = True
        ) -> None: ...

    @field_validator("source")
    @classmethod
    def _source(cls, value: str) -> str:
        return check_text(value, "source")

    @field_validator("destination")
    @classmethod
    def _destination(cls, value: str) -> str:
        return _not_a_system_directory(check_inside_path(value, "destination"))


class GitIdentity(Model):
    """Git's settings for commands inside, given through its environment.

    config: further settings by name, such as {"core.autocrlf": "input"}.
    """

    user_name: str = "Ringfence"
    user_email: str = "sandbox@ringfence.invalid"
    default_branch: str = "main"
    config: Mapping[str, str] = Field(default_factory=dict)

    @field_validator("user_name", "user_email", "default_branch")
    @classmethod
    def _line(cls, value: str) -> str:
        if not value or "\n" in value:
            raise ValueError("one line of text is needed")
        return check_text(value, "a git setting")

    @field_validator("config")
    @classmethod
    def _config(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for name, text in value.items():
            if not _CONFIG_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a git setting such as core.autocrlf")
            check_text(text, name)
        return value


class Repository(Model):
    """The directory tree the task works on.

    path: a directory on the host, or a URL (file, http, https, ssh) that is cloned first; alone, it
    stands for the whole, as in `SandboxSpec(repository=".")`.
    mode: "copy" (writable inside, the original never changes), "ro" (bound read-only), "rw" (bound;
    what is written inside is written to the original). mount_point: where it appears.
    include, exclude: patterns as in .gitignore; gitignore: leave out what .gitignore names;
    secrets_excluded: leave out files that usually hold secrets. history: "head" (one commit, of
    what is visible), "full", or None (full unless a committed file is left out). ref, depth,
    submodules: what is checked out of a URL or at a commit. subpath: the part of it that is used.
    owner: "uid" or "uid:gid" inside, None keeps the owners. file_mode, directory_mode: permission
    bits inside, None keeps them. size: bytes that may be written in mode "copy". git: identity.
    """

    short_forms = ({"type": "string"},)

    path: HostPath
    mode: Literal["copy", "ro", "rw"] = "copy"
    mount_point: str = "/workspace"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    gitignore: bool = False
    secrets_excluded: bool = True
    history: Literal["head", "full"] | None = None
    ref: str | None = None
    subpath: str | None = None
    depth: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    submodules: bool = False
    owner: Id | None = None
    file_mode: Annotated[int, Field(ge=0, le=0o777)] | None = None
    directory_mode: Annotated[int, Field(ge=0, le=0o777)] | None = None
    size: Size | None = None
    git: GitIdentity = GitIdentity.model_construct()

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            path: str | os.PathLike[str],
            mode: Literal["copy", "ro", "rw"] = "copy",
            mount_point: str = "/workspace",
            include: Texts = (),
            exclude: Texts = (),
            gitignore: bool = False,
            secrets_excluded: bool = True,
            history: Literal["head", "full"] | None = None,
            ref: str | None = None,
            subpath: str | None = None,
            depth: int | None = None,
            submodules: bool = False,
            owner: str | int | None = None,
            file_mode: int | None = None,
            directory_mode: int | None = None,
            size: int | str | None = None,
            git: GitIdentity | Table = ...,
        ) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, data: Any) -> Any:
        return {"path": data} if isinstance(data, str | os.PathLike) else data

    @field_validator("path")
    @classmethod
    def _path(cls, value: str) -> str:
        return check_path(value)

    @field_validator("mount_point")
    @classmethod
    def _mount_point(cls, value: str) -> str:
        return _not_a_system_directory(check_inside_path(value, "mount_point"))

    @field_validator("include", "exclude")
    @classmethod
    def _patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            if not pattern or "\n" in pattern:
                raise ValueError(f"{pattern!r} is not a pattern as in .gitignore")
            check_text(pattern, "a pattern")
        return value

    @field_validator("ref")
    @classmethod
    def _ref(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not value or value.startswith("-") or re.search(r"[\s~^:?*\[\\\x00-\x1f]|\.\.", value):
            raise ValueError(f"{value!r} is not a branch, tag or commit")
        return check_text(value, "ref")

    @field_validator("subpath")
    @classmethod
    def _subpath(cls, value: str | None) -> str | None:
        if value is None:
            return None
        check_text(value, "subpath")
        if value.startswith("/") or any(part in ("", ".", "..") for part in value.split("/")):
            raise ValueError("subpath is relative and normalised, such as packages/core")
        return value

    @field_validator("owner", mode="before")
    @classmethod
    def _owner(cls, value: Any) -> Any:
        if value is None:
            return None
        text = str(value)
        if not _OWNER.fullmatch(text) or any(int(part) > 65535 for part in text.split(":")):
            raise ValueError("an owner is a uid or uid:gid below 65536")
        return text


def check_path(value: str) -> str:
    """What may be a repository's path or URL."""
    if not value:
        raise ValueError("a path is needed, such as '.'")
    return check_text(value, "path")


def _not_a_system_directory(value: str) -> str:
    if value in ("/", "/bin", "/sbin", "/lib", "/lib64", "/usr", "/etc", "/run", "/tmp"):  # noqa: S108 - a name inside the sandbox
        raise ValueError("choose a directory of its own, such as /workspace or /data")
    return value
