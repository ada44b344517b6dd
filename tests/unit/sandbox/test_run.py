"""One command in a sandbox of its own: `run` says as much as `open` and `exec` do."""

import inspect

import ringfence
from ringfence.ledger import Ledger

from .conftest import Durable


def test_run_takes_what_open_and_exec_take() -> None:
    """All but what has no meaning for one command in a sandbox that is deleted."""
    run = inspect.signature(ringfence.run).parameters
    opened = inspect.signature(ringfence.open).parameters
    executed = inspect.signature(ringfence.Sandbox.exec).parameters
    assert set(opened) - set(run) == {"id", "detached"}
    assert set(executed) - set(run) == {"self", "ulimits"}
    for name in set(run) & set(executed) - {"env", "args", "cwd", "user"}:
        assert run[name].default == executed[name].default, name


async def test_run_passes_on_how_long_it_may_live_and_how_output_is_kept(
    durable: Durable, ledger: Ledger
) -> None:
    durable.on(["talk"], stdout="out\n", stderr="err\n")
    done = await ringfence.run(
        ["talk"], backend=durable, ledger=ledger,
        lifetime="1h", idle_timeout=600, merge_stderr=True,
    )  # fmt: skip
    assert done.result.stdout == b"out\nerr\n"


async def test_run_deletes_even_what_its_spec_calls_detached(
    durable: Durable, ledger: Ledger
) -> None:
    spec = ringfence.SandboxSpec(detached=True, lifetime=600)
    await ringfence.run(["true"], spec=spec, backend=durable, ledger=ledger)
    (entry,) = ledger.all()
    assert entry.reason == "deleted"
