"""What the kernel's files say, as fields of `Usage`: one function per file, all pure.

They raise ValueError on text that is not that file's. Names ending in _v2 are of cgroup version 2.
"""

from collections.abc import Callable, Mapping

Values = Mapping[str, float | int | None]
Parse = Callable[[bytes], Values]

_UNLIMITED = 2**62
_MICROSECONDS = 1e6
_NANOSECONDS = 1e9
_LOOPBACK = b"lo"
_CPU_STAT_V2 = (
    ("cpu_seconds", b"usage_usec"),
    ("cpu_user_seconds", b"user_usec"),
    ("cpu_system_seconds", b"system_usec"),
    ("cpu_throttled_seconds", b"throttled_usec"),
)
_NUMBER_BYTES = 20
"""Digits of the largest number of 64 bits."""


def counter(data: bytes, name: bytes) -> int | None:
    """The number in the line "name number". The other lines are not split: that takes five times
    as long in a memory.stat."""
    name = b"\n" + name + b" "
    data = b"\n" + data
    at = data.find(name)
    if at < 0:
        return None
    at += len(name)
    number = data[at : at + _NUMBER_BYTES].partition(b"\n")[0]
    return int(number) if number.isdigit() else None


def number(field: str, scale: float | None = None) -> Parse:
    """A file with one number, divided by `scale`."""

    def parse(data: bytes) -> Values:
        value = int(data)
        return {field: value if scale is None else value / scale}

    return parse


def limit(field: str) -> Parse:
    """A file with a limit; None where it is "max" or beyond any memory."""

    def parse(data: bytes) -> Values:
        text = data.strip()
        value = None if text == b"max" else int(text)
        return {field: None if value is None or value >= _UNLIMITED else value}

    return parse


def lines(field: str) -> Parse:
    """A file with one process or thread a line."""
    return lambda data: {field: data.count(b"\n")}


def memory_stat(data: bytes) -> Values:
    """memory.stat of version 1, descendants included."""
    return {
        "page_faults": counter(data, b"total_pgfault"),
        "major_page_faults": counter(data, b"total_pgmajfault"),
        "memory_cache": counter(data, b"total_cache"),
    }


def oom_control(data: bytes) -> Values:
    """memory.oom_control of version 1."""
    return {"oom_kills": counter(data, b"oom_kill")}


def pids_events(data: bytes) -> Values:
    """pids.events of both versions."""
    return {"forks_refused": counter(data, b"max")}


def cpu_stat(data: bytes) -> Values:
    """cpu.stat of version 1: only throttling."""
    throttled = counter(data, b"throttled_time")
    return {"cpu_throttled_seconds": None if throttled is None else throttled / _NANOSECONDS}


def blkio(data: bytes) -> Values:
    """blkio.throttle.io_service_bytes_recursive: lines of "major:minor Read bytes"."""
    totals = {b"Read": 0, b"Write": 0}
    for line in data.splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[1] in totals:
            totals[fields[1]] += int(fields[2])
    return {"disk_read": totals[b"Read"], "disk_written": totals[b"Write"]}


def memory_stat_v2(data: bytes) -> Values:
    """memory.stat of version 2, which always includes descendants."""
    return {
        "page_faults": counter(data, b"pgfault"),
        "major_page_faults": counter(data, b"pgmajfault"),
        "memory_cache": counter(data, b"file"),
    }


def memory_events_v2(data: bytes) -> Values:
    """memory.events."""
    return {"oom_kills": counter(data, b"oom_kill")}


def cpu_stat_v2(data: bytes) -> Values:
    """cpu.stat: microseconds."""
    found = {}
    for field, name in _CPU_STAT_V2:
        microseconds = counter(data, name)
        if microseconds is not None:
            found[field] = microseconds / _MICROSECONDS
    return found


def io_stat_v2(data: bytes) -> Values:
    """io.stat: lines of "major:minor rbytes=1 wbytes=2 ..."."""
    totals = {b"rbytes": 0, b"wbytes": 0}
    for line in data.splitlines():
        for item in line.split()[1:]:
            name, _, value = item.partition(b"=")
            if name in totals:
                totals[name] += int(value)
    return {"disk_read": totals[b"rbytes"], "disk_written": totals[b"wbytes"]}


def net_dev(data: bytes) -> Values:
    """/proc/PID/net/dev: bytes of all interfaces but the loopback one."""
    received = sent = 0
    for line in data.splitlines()[2:]:
        name, _, rest = line.partition(b":")
        if name.strip() == _LOOPBACK:
            continue
        fields = rest.split()
        received += int(fields[0])
        sent += int(fields[8])
    return {"network_received": received, "network_sent": sent}


V1: Mapping[str, tuple[tuple[str, Parse], ...]] = {
    "memory": (
        ("memory.usage_in_bytes", number("memory")),
        ("memory.max_usage_in_bytes", number("memory_peak")),
        ("memory.limit_in_bytes", limit("memory_limit")),
        ("memory.stat", memory_stat),
        ("memory.oom_control", oom_control),
    ),
    "cpuacct": (
        ("cpuacct.usage", number("cpu_seconds", _NANOSECONDS)),
        ("cpuacct.usage_user", number("cpu_user_seconds", _NANOSECONDS)),
        ("cpuacct.usage_sys", number("cpu_system_seconds", _NANOSECONDS)),
    ),
    "cpu": (("cpu.stat", cpu_stat),),
    "pids": (
        ("pids.current", number("pids")),
        ("pids.peak", number("pids_peak")),
        ("pids.events", pids_events),
    ),
    # These two do not list what is in the cgroups below, as a single command's are; no command
    # has a freezer of its own.
    "freezer": (("cgroup.procs", lines("processes")), ("tasks", lines("threads"))),
    "blkio": (("blkio.throttle.io_service_bytes_recursive", blkio),),
}
"""Files of a version 1 cgroup by controller."""

V2: Mapping[str, tuple[tuple[str, Parse], ...]] = {
    "memory": (
        ("memory.current", number("memory")),
        ("memory.peak", number("memory_peak")),
        ("memory.max", limit("memory_limit")),
        ("memory.stat", memory_stat_v2),
        ("memory.events", memory_events_v2),
    ),
    "pids": (
        ("pids.current", number("pids")),
        ("pids.peak", number("pids_peak")),
        ("pids.events", pids_events),
    ),
    "io": (("io.stat", io_stat_v2),),
    # Of every cgroup, whatever its controllers.
    "": (
        ("cpu.stat", cpu_stat_v2),
        ("cgroup.procs", lines("processes")),
        ("cgroup.threads", lines("threads")),
    ),
}
"""Files of a version 2 cgroup by controller. Of the cgroups below it `cgroup.procs`,
`cgroup.threads` and, before Linux 6.11, `pids.events` tell nothing."""
