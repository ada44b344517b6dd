"""The fixtures that all checks share."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest
import pytest_asyncio

import ringfence
from ringfence.backends import registry
from ringfence.backends.base import Features

_WHERE = ("backend", "endpoint", "ceiling", "ledger", "events")
PATIENCE = 30.0
"""Seconds that a check waits for a fact that must come."""
_numbers = itertools.count(1)

Open = Callable[..., "ringfence.sandbox.entry.Opening"]


class Checks:
    """What every group of checks builds on.

    sandbox: one for the whole class, for checks that leave it usable; its variables and working
    directory are put back after each check. place: a fresh directory in it that its user owns.
    fresh: opens a sandbox of the check's own, with changes to the keywords. features: of the
    backend.
    """

    pytestmark = pytest.mark.asyncio(loop_scope="class")

    exempt: Mapping[str, str] = {}
    """Names of checks that this backend does not run, and why."""

    @pytest.fixture(scope="class")
    @classmethod
    def spec_kwargs(cls) -> dict[str, Any]:
        """Override it: the keywords of `ringfence.open` for the backend under test."""
        raise NotImplementedError("override the fixture spec_kwargs")

    @pytest.fixture(autouse=True)
    def _exempt(self, request: pytest.FixtureRequest) -> None:
        name = request.function.__name__
        if name in self.exempt:
            pytest.skip(f"exempt: {self.exempt[name]}")

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @classmethod
    async def shared(cls, spec_kwargs: dict[str, Any]) -> AsyncIterator[ringfence.Sandbox]:
        async with ringfence.open(**spec_kwargs) as sandbox:
            yield sandbox

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @classmethod
    async def features(cls, spec_kwargs: dict[str, Any]) -> AsyncIterator[Features]:
        backend = spec_kwargs.get("backend", "auto")
        if isinstance(backend, str):
            if backend == "auto":
                backend = "docker" if spec_kwargs.get("image") else "process"
            loaded = registry.load(backend, spec_kwargs.get("endpoint"))
            try:
                yield await loaded.features()
            finally:
                await loaded.aclose()
        else:
            yield await backend.features()

    @pytest_asyncio.fixture(loop_scope="class")
    async def sandbox(self, shared: ringfence.Sandbox) -> AsyncIterator[ringfence.Sandbox]:
        variables, cwd = dict(shared.env), shared.cwd
        yield shared
        for name in set(shared.env) - set(variables):
            del shared.env[name]
        shared.env.update(variables)
        await shared.chdir(cwd)

    @pytest_asyncio.fixture(loop_scope="class")
    async def place(self, sandbox: ringfence.Sandbox) -> str:
        path = f"/tmp/check-{next(_numbers)}"
        await sandbox.files.mkdir(path)
        return path

    @pytest.fixture
    def fresh(self, spec_kwargs: dict[str, Any]) -> Open:
        return lambda **changes: ringfence.open(**{**spec_kwargs, **changes})


def undegraded(spec_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The `security` of what these keywords open, where nothing is done without."""
    given = spec_kwargs.get("security", {})
    if isinstance(given, ringfence.Security):
        given = {name: getattr(given, name) for name in given.model_fields_set}
    return {**given, "allow_degraded": ()}


def pool_of(spec_kwargs: Mapping[str, Any], size: int) -> ringfence.Pool:
    """A pool of what these keywords of `ringfence.open` open."""
    kwargs = dict(spec_kwargs)
    where = {name: kwargs.pop(name) for name in _WHERE if name in kwargs}
    return ringfence.pool(ringfence.SandboxSpec.parse(kwargs), size=size, **where)


async def until(fact: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a fact; fails after PATIENCE."""
    end = time.monotonic() + PATIENCE
    while not await fact():
        assert time.monotonic() < end, "what was waited for did not happen"
        await asyncio.sleep(0.05)


async def running(sandbox: ringfence.Sandbox) -> int:
    """How many commands run in the sandbox."""
    return sum(process.running for process in await sandbox.processes())


async def some_run(sandbox: ringfence.Sandbox) -> bool:
    """Whether any command runs, to wait for."""
    return await running(sandbox) > 0


async def reopened(fresh: Open, sandbox_id: str) -> ringfence.Sandbox:
    """The sandbox of that id, looked for where `fresh` opens its own."""
    opening = fresh()
    where = opening.where
    return await ringfence.open(
        id=sandbox_id, backend=where.backend, endpoint=where.endpoint, ledger=where.ledger
    )
