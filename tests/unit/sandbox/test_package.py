"""The package's surface: what it exports, and what importing it loads."""

import importlib
import inspect
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import get_type_hints

import pytest

import ringfence
from ringfence import errors
from ringfence.errors import Category, SandboxError


def loaded(statement: str) -> set[str]:
    """The modules that a fresh interpreter has after a statement."""
    program = f"import sys, json; {statement}; print(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(answer.stdout))


def test_importing_loads_nothing_heavy() -> None:
    """`import ringfence` loads no other part, no asyncio and no dependency."""
    modules = loaded("import ringfence")
    assert not {"asyncio", "pydantic", "aiodocker", "typer", "rich", "sqlite3"} & modules
    assert {name for name in modules if name.startswith("ringfence")} == {"ringfence"}


def test_importing_the_digests_loads_them_alone() -> None:
    """`import ringfence.digest` loads no other part of the package and no dependency."""
    modules = loaded("import ringfence.digest")
    parts = {name.split(".")[1] for name in modules if name.startswith("ringfence.")}
    assert parts <= {"digest", "errors"}
    assert not {"pydantic", "aiodocker", "typer"} & modules


def test_every_exported_name_is_there_and_sorted() -> None:
    """`__all__` is sorted, complete for `dir`, and each name resolves."""
    names = ringfence.__all__
    assert names == sorted(names)
    assert set(names) <= set(dir(ringfence))
    for name in names:
        assert getattr(ringfence, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As of any module."""
    with pytest.raises(AttributeError, match="no_such_name"):
        ringfence.no_such_name  # noqa: B018


def test_parts_are_reached_without_importing_them_first() -> None:
    """ringfence.sync and ringfence.errors are modules."""
    assert ringfence.sync is importlib.import_module("ringfence.sync")
    assert ringfence.errors is errors


def annotated() -> Iterator[object]:
    """Every public function, method and property of the package and of its blocking side."""
    for home in (ringfence, ringfence.sync):
        for name in home.__all__:
            value = getattr(home, name)
            if inspect.isroutine(value):
                yield value
            elif inspect.isclass(value):
                yield value
                members = [one for at, one in vars(value).items() if not at.startswith("_")]
                yield from (one.fget if isinstance(one, property) else one for one in members)


def test_what_reads_annotations_can_read_all_of_the_interface() -> None:
    """As what makes a model's tools of methods does: also of what is loaded later."""
    read = [get_type_hints(one) for one in annotated() if hasattr(one, "__annotations__")]
    assert {ringfence.Workspace, ringfence.Snapshot} <= {one.get("return") for one in read}


def test_annotations_load_nothing_before_they_are_read() -> None:
    """A sandbox without a repository needs none of it."""
    modules = loaded("import ringfence; ringfence.Sandbox, ringfence.open")
    assert not {"ringfence.sandbox.workspace", "ringfence.digest.store"} & modules


CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, SandboxError)
]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_is_whole_after_pickle_and_json(cls: type[SandboxError]) -> None:
    """Class, message, operation, sandbox and context come back."""
    error = cls("what happened; what to do", op="exec", sandbox_id="x", context={"path": "/p"})
    through_json = SandboxError.from_dict(json.loads(json.dumps(error.to_dict())))
    for copy in (pickle.loads(pickle.dumps(error)), through_json):
        assert type(copy) is cls
        assert vars(copy) == vars(error)
        assert str(copy) == "what happened; what to do"


def test_every_error_has_a_code_of_its_own_and_is_exported() -> None:
    """Codes are unique, categories known, and the package exports each class."""
    assert len({cls.code for cls in CLASSES}) == len(CLASSES) == len(errors.ErrorCode)
    for cls in CLASSES:
        assert isinstance(cls.category, Category)
        assert isinstance(cls.retryable, bool)
        assert getattr(ringfence, cls.__name__) is cls
