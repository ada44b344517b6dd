"""A container's usage as the Engine tells it, where its cgroups are on another machine."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from ringfence.backends.docker.engine import Engine
from ringfence.errors import NotFoundError
from ringfence.spec import Usage

_NANOSECONDS = 1e9
_UNLIMITED = 2**62


async def ask(engine: Engine, container: str, started: str) -> Usage | None:
    """One sample; takes up to two seconds. started: as inspect says it.

    None when there is no such container, or it does not run.
    """
    try:
        found = await engine.get(
            "usage", "containers", container, "stats", stream=False, **{"one-shot": True}
        )
    except NotFoundError:
        return None
    if not isinstance(found, Mapping) or not _at(found, "pids_stats"):
        return None
    return usage_of(found, started)


def usage_of(found: Mapping[str, Any], started: str) -> Usage:
    """The Engine's answer as a Usage; what it does not say is None."""
    cpu, memory = _at(found, "cpu_stats"), _at(found, "memory_stats")
    details = _at(memory, "stats")
    limit = _number(memory, "limit")
    return Usage(
        cpu_seconds=_seconds(_at(cpu, "cpu_usage"), "total_usage"),
        cpu_user_seconds=_seconds(_at(cpu, "cpu_usage"), "usage_in_usermode"),
        cpu_system_seconds=_seconds(_at(cpu, "cpu_usage"), "usage_in_kernelmode"),
        cpu_throttled_seconds=_seconds(_at(cpu, "throttling_data"), "throttled_time"),
        memory=_number(memory, "usage"),
        memory_peak=_number(memory, "max_usage"),
        memory_limit=None if limit is None or limit >= _UNLIMITED else limit,
        memory_cache=_first(details, ("total_cache", "file")),
        page_faults=_first(details, ("total_pgfault", "pgfault")),
        major_page_faults=_first(details, ("total_pgmajfault", "pgmajfault")),
        pids=_number(_at(found, "pids_stats"), "current"),
        disk_read=_moved(found, "read"),
        disk_written=_moved(found, "write"),
        network_received=_network(found, "rx_bytes"),
        network_sent=_network(found, "tx_bytes"),
        uptime=_uptime(str(found.get("read", "")), started),
        source="engine",
    )


def _at(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = found.get(name)
    return part if isinstance(part, Mapping) else {}


def _number(found: Mapping[str, Any], name: str) -> int | None:
    value = found.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _first(found: Mapping[str, Any], names: Iterable[str]) -> int | None:
    return next((value for name in names if (value := _number(found, name)) is not None), None)


def _seconds(found: Mapping[str, Any], name: str) -> float | None:
    value = _number(found, name)
    return None if value is None else value / _NANOSECONDS


def _moved(found: Mapping[str, Any], kind: str) -> int | None:
    rows = _at(found, "blkio_stats").get("io_service_bytes_recursive")
    if not isinstance(rows, list):
        return None
    fitting = (row for row in rows if str(row.get("op", "")).lower() == kind)
    return sum(_number(row, "value") or 0 for row in fitting)


def _network(found: Mapping[str, Any], name: str) -> int:
    """Bytes of all its interfaces: the Engine names none where there is no network."""
    interfaces = _at(found, "networks")
    return sum(_number(_at(interfaces, one), name) or 0 for one in interfaces)


def _uptime(read: str, started: str) -> float | None:
    """Seconds between the container's start and the sample, both by the daemon's clock."""
    begin, end = _moment(started), _moment(read)
    return None if begin is None or end is None else max(0.0, (end - begin).total_seconds())


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    if found.tzinfo is None:
        return None
    return found if found.year > 1 else None
