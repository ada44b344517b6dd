"""`ringfence stats`, `events`, `health` and `inspect`: how a sandbox is."""

import asyncio
import json as jsonlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from ringfence.cli import INTERRUPTED, output, shape
from ringfence.cli.common import Id, Json

_BARS = "▁▂▃▄▅▆▇█"
_HISTORY = 30


def inspect(
    sandbox: Id,
    json: Json = False,
) -> int:
    """Show what a sandbox is and what is really enforced, read back from kernel and runtime."""
    return asyncio.run(_inspect(sandbox, json))


async def _inspect(name: str, json: bool) -> int:
    import ringfence
    from ringfence.sandbox.members import from_elsewhere

    info, receipt = await from_elsewhere(name), None
    if info is None:
        async with ringfence.open(id=name) as sandbox:
            info, receipt = sandbox.info, sandbox.receipt
    if json:
        output.document({"sandbox": info.to_dict(), "receipt": receipt and receipt.to_dict()})
    else:
        created, ends = shape.times(info)
        output.fields({**info.to_dict(), "created": created, "ends": ends})
        if receipt is not None:
            output.line(f"\n{receipt}")
    return 0


def health(
    sandbox: Id,
    json: Json = False,
) -> int:
    """Ask whether a sandbox is well. Ends with 1 when it is not."""
    return asyncio.run(_health(sandbox, json))


async def _health(name: str, json: bool) -> int:
    import ringfence

    async with ringfence.open(id=name) as sandbox:
        found = await sandbox.health()
    if json:
        output.document(asdict(found))
    else:
        latency = None if found.latency is None else f"{found.latency * 1000:.1f} ms"
        idle = None if found.idle is None else output.span(found.idle)
        output.fields({**asdict(found), "latency": latency, "idle": idle})
    return 0 if found.ok else 1


def stats(
    sandboxes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID...]", show_default=False, help="All without one."),
    ] = None,
    interval: Annotated[float, typer.Option(help="Seconds between two samples.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="One sample, then end.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON line a sample.")] = False,
) -> int:
    """Show usage, live: processor, memory, processes, disk. Ctrl-C ends it."""
    try:
        return asyncio.run(_stats(list(sandboxes or []), interval, once, json))
    except KeyboardInterrupt:  # its usual end: no failure that --json would tell
        return INTERRUPTED


async def _stats(names: list[str], interval: float, once: bool, json: bool) -> int:
    from ringfence.sandbox.members import usages
    from ringfence.spec.quantity import check_interval

    check_interval(interval)
    history: dict[str, list[float]] = {}
    last: dict[str, Any] = {}
    live = None if json or once else _live()
    try:
        while True:
            now = {one: usage async for one, usage in usages(names)}
            for name, usage in now.items():
                history.setdefault(name, []).append(_cores(last.get(name), usage))
                del history[name][:-_HISTORY]
            last = now
            _show(now, history, live, json)
            if once:
                return _measured(names, now)
            await asyncio.sleep(interval)
    finally:
        if live is not None:
            live.stop()


def _measured(names: Sequence[str], now: Mapping[str, Any]) -> int:
    """The exit code of one sample; 1, and who is missing, when not all who were named are in it."""
    missing = [name for name in names if not any(one.startswith(name) for one in now)]
    if missing:
        output.note(
            f"nothing can be measured of {', '.join(missing)}: ended, or without a cgroup; "
            "see `ringfence ps --all` and `ringfence health ID`"
        )
    return 1 if missing else 0


def _live() -> Any:
    """What is drawn anew at each sample; None where nothing can be."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if not console.is_terminal or console.is_dumb_terminal:
        return None
    live = Live(console=console, auto_refresh=False)
    live.start()
    return live


def _show(now: dict[str, Any], history: dict[str, list[float]], live: Any, json: bool) -> None:
    if json:
        for name, usage in now.items():
            output.line(jsonlib.dumps({"id": name, **(shape.usage(usage) or {})}))
        return
    heads = ("id", "cpu", "", "memory", "limit", "pids", "read", "written", "source")
    rows = [_row(name, usage, history[name]) for name, usage in now.items()]
    if live is None:
        output.table(heads, rows)
        return
    from rich.table import Table

    table = Table(*heads, box=None)
    for row in rows:
        table.add_row(*row)
    live.update(table, refresh=True)


def _row(name: str, usage: Any, cores: Sequence[float]) -> tuple[str, ...]:
    size, pids = output.size, "-" if usage.pids is None else str(usage.pids)
    return (name, f"{cores[-1] * 100:.0f}%", sparkline(cores), size(usage.memory),
            size(usage.memory_limit), pids, size(usage.disk_read), size(usage.disk_written),
            usage.source)  # fmt: skip


def _cores(before: Any, now: Any) -> float:
    if before is None or None in (before.cpu_seconds, now.cpu_seconds, before.uptime, now.uptime):
        return 0.0
    passed = now.uptime - before.uptime
    return float(max(0.0, now.cpu_seconds - before.cpu_seconds) / passed) if passed > 0 else 0.0


def sparkline(values: Sequence[float]) -> str:
    """The values as a row of bars, the highest of them (and at least 1) as a full one."""
    top = max(1.0, *values)
    return "".join(_BARS[min(7, int(value / top * 7.999))] for value in values)


def events(
    sandbox: Id,
) -> int:
    """Follow what happens to a sandbox, one JSON line an event, until it ends or Ctrl-C.

    It looks once a second and does not hold the sandbox: it tells that it is paused or resumed,
    limits that were hit, and its end. Commands and connections are in the --audit FILE of who runs
    them.
    """
    from ringfence.sandbox.outside import follow

    asyncio.run(follow(sandbox, _tell))
    return 0


def _tell(event: Any) -> None:
    output.line(jsonlib.dumps(event.to_dict(), default=str))
