"""One command in a sandbox of its own: `run` says as much as `open` and `exec` do."""

import inspect
import json

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


async def test_what_a_debugger_shows_says_what_it_is(durable: Durable, ledger: Ledger) -> None:
    """No object of the public interface is an address in memory."""
    async with ringfence.open(backend=durable, ledger=ledger) as sandbox:
        process = await sandbox.spawn(["cat"])
        assert repr(sandbox.files) == f"<Files of sandbox {sandbox.id}>"
        assert repr(process) == f"<Process {process.id} pid {process.pid} ('cat',) running>"
        process.kill()
        await process.wait()
        assert repr(process).endswith("('cat',) ended>")
        assert repr(sandbox.network) == "<Networking reaches [] ports {}>"
    async with ringfence.pool(
        ringfence.SandboxSpec(), size=1, backend=durable, ledger=ledger
    ) as pool:
        assert repr(pool).startswith("<Pool of 1 PoolStatistics(")


async def test_what_run_gives_back_goes_into_json(durable: Durable, ledger: Ledger) -> None:
    """All of it, as a harness keeps it beside its results."""
    durable.on(["talk"], stdout=b"\xff", exit_code=3)
    done = await ringfence.run(["talk"], backend=durable, ledger=ledger)
    kept = json.loads(json.dumps(done.to_dict()))
    assert (kept["result"]["exit_code"], kept["result"]["stdout_base64"]) == (3, "/w==")
    assert kept["receipt"]["controls"] == []
    assert "Created" in [event["event"] for event in kept["events"]]
    assert kept["patch"] is None
