"""LangChain's standard tests of sandboxes, on each backend."""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_tests.integration_tests import SandboxIntegrationTests

from ringfence import sync
from ringfence.integrations.langchain import RingfenceSandbox

from .conftest import BACKENDS, require


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_what_a_command_writes_beside_itself_is_there(backend: str) -> None:
    """The working directory can be written, whatever the root; one that is named is taken."""
    require(backend)
    where = {
        name: BACKENDS[backend][name] for name in ("backend", "image") if name in BACKENDS[backend]
    }
    with RingfenceSandbox(**where) as sandbox:
        assert sandbox.execute("echo mine > notes && cat notes").output == "mine\n"
    with RingfenceSandbox(cwd="/", **where) as sandbox:
        assert sandbox.execute("pwd").output == "/\n"


def test_a_block_that_cannot_begin_leaves_no_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    require("process")
    deleted: list[str] = []
    delete = sync.Sandbox.delete

    def noting(sandbox: sync.Sandbox, *more: Any, **named: Any) -> None:
        deleted.append(sandbox.id)
        delete(sandbox, *more, **named)

    def lost(*_: Any) -> None:
        raise OSError("the directory cannot be had")

    monkeypatch.setattr(sync.Sandbox, "delete", noting)
    monkeypatch.setattr(sync.Sandbox, "chdir", lost)
    with pytest.raises(OSError, match="cannot be had"), RingfenceSandbox(backend="process"):
        pass
    assert len(deleted) == 1


class OnBackend(SandboxIntegrationTests):
    """The suite with one sandbox for the whole class."""

    backend = ""

    @pytest.fixture(scope="class")
    def sandbox(self) -> Iterator[Any]:
        require(self.backend)
        with RingfenceSandbox(**BACKENDS[self.backend]) as sandbox:
            yield sandbox


class TestDocker(OnBackend):
    backend = "docker"


class TestProcess(OnBackend):
    backend = "process"


del OnBackend, SandboxIntegrationTests
