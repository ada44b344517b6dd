"""What every part of a spec has in common."""

import os
import posixpath
import threading
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import pydantic
from pydantic_core import CoreSchema

from ringfence.errors import InvalidSpecError
from ringfence.spec.quantity import short

Id = Annotated[
    str,
    pydantic.WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0}]}, mode="validation"
    ),
]
"""Who: a name, a number, or "uid:gid"; kept as a text."""

HostPath = Annotated[
    str,
    pydantic.BeforeValidator(
        lambda value: os.fspath(value) if isinstance(value, os.PathLike) else value
    ),
]
"""A path on the host, given as text or as a path object; kept as a text."""

Table = Mapping[str, Any]
"""For a type checker: the fields of a model by their names, which stand for the model."""
Texts = tuple[str, ...] | list[str]
"""For a type checker: several texts. A Sequence would let a single text pass."""

_BUILDING = threading.RLock()


class Model(pydantic.BaseModel):
    """A frozen value: unknown fields are refused, defaults are checked too."""

    model_config = pydantic.ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        defer_build=True,  # most parts are validated within a SandboxSpec alone
        hide_input_in_errors=True,  # a secret may be in it; `invalid_spec` tells what may be told
    )
    short_forms: ClassVar[tuple[dict[str, Any], ...]] = ()
    """JSON Schemas of what stands for a whole value, such as a number for a Port."""

    @classmethod
    def model_rebuild(cls, **options: Any) -> bool | None:
        """What pydantic does before the first use: one thread at a time, which older versions
        do not see to themselves."""
        with _BUILDING:
            return super().model_rebuild(**options)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: pydantic.GetJsonSchemaHandler
    ) -> dict[str, Any]:
        table = handler(core_schema)
        if not cls.short_forms or handler.mode != "validation":
            return table
        return {"anyOf": [table, *cls.short_forms]}

    @classmethod
    def parse(cls, data: Any) -> Self:
        """Validate `data`; InvalidSpecError names every wrong field with its value."""
        try:
            return cls.model_validate(data)
        except pydantic.ValidationError as error:
            raise invalid_spec(error) from None


def invalid_spec(error: pydantic.ValidationError) -> InvalidSpecError:
    """One InvalidSpecError for all that pydantic found wrong."""
    problems = []
    for entry in error.errors(include_url=False):
        field = ".".join(str(part) for part in entry["loc"]) or "spec"
        reason = entry["msg"].removeprefix("Value error, ")
        if entry["type"] == "extra_forbidden":
            reason = "no such field" + _nearest_field(str(entry["loc"][-1]))
        value = f" (got {short(entry['input'])})" if _may_be_shown(entry) else ""
        problems.append({"field": field, "message": f"{field}: {reason}{value}"})
    return InvalidSpecError(
        "; ".join(problem["message"] for problem in problems),
        op="validate",
        context={"fields": [problem["field"] for problem in problems]},
    )


def _nearest_field(name: str) -> str:
    import difflib

    models = Model.__subclasses__()
    for model in models:
        if name in model.model_fields:
            return f": it is one of {model.__name__}"
    known = {field for model in models for field in model.model_fields}
    found = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def _may_be_shown(entry: Any) -> bool:
    """Whether the wrong value may stand in a message: no secret, no variable, no URL
    that may have a password in it, no whole table."""
    hidden = {"secrets", "env", "http_proxy", "https_proxy"}.intersection(entry["loc"])
    return entry["type"] != "missing" and not hidden and not isinstance(entry["input"], dict)


def check_text(value: str, what: str, *, any_bytes: bool = False) -> str:
    """`value`, unless it holds a NUL, or bytes that are no UTF-8: no record of a spec has these.

    any_bytes: for what is in no spec, these pass, as surrogates.
    """
    if "\0" in value:
        raise ValueError(f"{what} holds a NUL character")
    if any_bytes or value.isascii():
        return value
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"{what} is not UTF-8")
    return value


def check_inside_path(value: str, what: str, *, any_bytes: bool = False) -> str:
    """An absolute, normalised path inside a sandbox, not under /proc, /sys or /dev. any_bytes: as
    for `check_text`.

    The kernel's directories are refused because a working directory such as /proc/self/fd/7 has
    been a way out of a container (CVE-2024-21626).
    """
    check_text(value, what, any_bytes=any_bytes)
    if not value.startswith("/"):
        raise ValueError(f"{what} must be absolute, such as /workspace")
    if posixpath.normpath(value) != value or value.startswith("//"):
        whole = posixpath.normpath("/" + value.lstrip("/"))
        raise ValueError(f"{what} must be normalised: write {whole!r}")
    if value.split("/")[1] in ("proc", "sys", "dev", ".ringfence"):
        raise ValueError(f"{what} may not be below /proc, /sys, /dev or /.ringfence")
    return value
