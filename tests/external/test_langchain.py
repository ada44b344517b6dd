"""LangChain's standard tests of sandboxes, on each backend."""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_tests.integration_tests import SandboxIntegrationTests

from ringfence.integrations.langchain import RingfenceSandbox

from .conftest import BACKENDS, require


class OnBackend(SandboxIntegrationTests):
    """The suite with one sandbox for the whole class."""

    backend = ""

    @pytest.fixture(scope="class")
    def sandbox(self) -> Iterator[Any]:
        require(self.backend)
        with RingfenceSandbox(cwd="/tmp", **BACKENDS[self.backend]) as sandbox:
            yield sandbox


class TestDocker(OnBackend):
    backend = "docker"


class TestProcess(OnBackend):
    backend = "process"


del OnBackend, SandboxIntegrationTests
