"""Rows of how much of the machine a sandbox can use."""

from collections.abc import Iterator, Sequence

from ringfence.sandbox.receipt.evidence import Findings, control, number, remembered
from ringfence.spec import Control, Ulimits
from ringfence.spec.limits import PROC_NAMES, UNLIMITED, cores

PAGE = 4096
HEADROOM = 32
"""Processes of the guest's own that the cgroup's limit may leave above the user's."""
GVISOR_HEADROOM = 512

_DISK_OVERHEAD = 2 << 20
"""What a file system of that size may need for itself, beside a sixteenth of it."""


def resource_rows(found: Findings) -> Iterator[Control]:
    """memory, swap, cpus, cpuset, cpu_shares, pids, block rates, ulimits, oom_score_adj."""
    limits = found.spec.limits
    if limits.memory is not None:
        yield _memory(found, limits.memory)
    yield from _swap(found)
    if limits.cpus is not None:
        yield _cpus(found, limits.cpus)
    if limits.cpuset is not None:
        yield _cpuset(found, limits.cpuset)
    if limits.cpu_shares is not None:
        yield _shares(found, limits.cpu_shares)
    if limits.pids is not None:
        yield _pids(found, limits.pids)
    yield from _rates(found)
    if limits.disk is not None:
        yield _disk(found, limits.disk)
    yield from _ulimits(found)
    if found.spec.security.oom_score_adj is not None:
        yield _oom_score(found, found.spec.security.oom_score_adj)


def _memory(found: Findings, asked: int) -> Control:
    text, where = found.cgroup("memory.limit_in_bytes", "memory.max") or (None, "no cgroup file")
    value = number(text)
    ok = value is not None and asked - PAGE < value <= asked
    return control("memory", asked, value or text, where, ok=ok)


def _swap(found: Findings) -> Iterator[Control]:
    """Nothing where the kernel does not count swap and none was asked for."""
    memory, asked = found.spec.limits.memory, found.spec.limits.swap
    if memory is None or asked is None:
        return
    both = found.cgroup("memory.memsw.limit_in_bytes")
    if both is not None:
        swap = (number(both[0]) or 2**63) - memory // PAGE * PAGE
        yield control("swap", asked, swap, both[1], ok=asked - PAGE < swap <= asked)
        return
    text, where = found.cgroup("memory.swap.max") or (None, "no cgroup file")
    value = number(text) if text is not None else None
    if text is None and asked == 0:
        return
    ok = value is not None and asked - PAGE < value <= asked
    yield control("swap", asked, text, where, ok=ok)


def _cpus(found: Findings, asked: float) -> Control:
    value, where = None, "no cgroup file"
    quota, period = found.cgroup("cpu.cfs_quota_us"), found.cgroup("cpu.cfs_period_us")
    both = found.cgroup("cpu.max")
    if quota is not None and period is not None:
        value, where = _ratio(quota[0], period[0]), quota[1]
    elif both is not None:
        value, where = _ratio(*[*both[0].split(), "0"][:2]), both[1]
    ok = value is not None and abs(value - asked) <= 0.011
    return control("cpus", asked, value, where, ok=ok)


def _ratio(quota: str, period: str) -> float | None:
    part, whole = number(quota), number(period)
    return None if part is None or part < 0 or not whole else round(part / whole, 3)


def _cpuset(found: Findings, asked: str) -> Control:
    text, where = found.cgroup("cpuset.cpus") or (
        found.view.status.get("Cpus_allowed_list", ""),
        "a command's /proc/self/status: Cpus_allowed_list",
    )
    try:
        ok = bool(text) and cores(text) <= cores(asked)
    except ValueError:
        ok = False
    return control("cpuset", asked, text, where, ok=ok)


def _shares(found: Findings, asked: int) -> Control:
    shares = found.cgroup("cpu.shares")
    if shares is not None:
        return control("cpu_shares", asked, shares[0], shares[1], ok=number(shares[0]) == asked)
    text, where = found.cgroup("cpu.weight") or (None, "no cgroup file")
    weight = 1 + ((asked - 2) * 9999) // 262142
    return control("cpu_shares", asked, text and f"weight {text}", where, ok=number(text) == weight)


def _pids(found: Findings, asked: int) -> Control:
    text, where = found.cgroup("pids.max") or (None, "no cgroup file")
    value = number(text)
    headroom = GVISOR_HEADROOM if found.gvisor else HEADROOM
    ok = value is not None and asked <= value <= asked + headroom
    shown = text if value is None else f"{value}, the guest's {value - asked} included"
    return control("pids", asked, shown, where, ok=ok)


def _rates(found: Findings) -> Iterator[Control]:
    for name in ("read_rate", "write_rate"):
        rate = getattr(found.spec.limits, name)
        if rate is not None:
            yield _rate(found, name, rate)


def _rate(found: Findings, name: str, asked: int) -> Control:
    kind = name.removesuffix("_rate")
    text, where = found.cgroup(f"blkio.throttle.{kind}_bps_device") or ("", "no cgroup file")
    values = [line.split()[-1] for line in text.splitlines() if line.split()]
    if not values:
        text, where = found.cgroup("io.max") or ("", where)
        key = f"{kind[0]}bps="
        values = [word.removeprefix(key) for word in text.split() if word.startswith(key)]
    ok = bool(values) and all(value == str(asked) for value in values)
    return control(name, asked, tuple(values), where, ok=ok)


def _disk(found: Findings, asked: int) -> Control:
    """The size that the storage driver has, of which a command sees that of the whole disk only;
    and that of the workspace, as a command sees it. What is only watched is a gap that says so."""
    if found.disk_watched:
        where = "the engine: SizeRw, asked by the holder"
        return control("disk", asked, "watched: its writers are killed", where, ok=False)
    options = found.host_config.get("StorageOpt")
    size = options.get("size") if isinstance(options, dict) else None
    repository = found.spec.repository
    if repository is None or repository.mode != "copy":
        return control("disk", asked, size, "the engine: StorageOpt", ok=number(size) == asked)
    seen = found.view.paths.get(repository.mount_point)
    has = 0 if seen is None else seen.bytes
    ok = 0 < has <= asked + asked // 16 + _DISK_OVERHEAD
    rest = "a read-only root" if size is None else f"{size} of StorageOpt"
    if size is None:
        ok = ok and found.spec.security.read_only_root is True
    else:
        ok = ok and number(size) == asked
    shown = f"{has} bytes of workspace, {rest}"
    where = f"a command's statfs: {repository.mount_point}; the engine: StorageOpt"
    return control("disk", asked, shown, where, ok=ok)


def _ulimits(found: Findings) -> Sequence[Control]:
    seen = tuple(found.view.limits.items())
    return _ulimit_rows(found.spec.limits.ulimits, seen, found.gvisor)


@remembered
def _ulimit_rows(
    asked: Ulimits, seen: tuple[tuple[str, tuple[int | None, int | None]], ...], gvisor: bool
) -> Sequence[Control]:
    limits, rows = dict(seen), []
    for name, words in PROC_NAMES.items():
        pair = getattr(asked, name)
        if pair is None:
            continue
        has = [UNLIMITED if value is None else value for value in limits.get(words, (-1, -1))]
        ok = 0 <= has[0] <= pair.soft and 0 <= has[1] <= pair.hard
        where = f"a command's /proc/self/limits: {words}"
        if words not in limits and gvisor:
            ok, where = True, "the guest sets it before the command, or fails; gVisor hides it"
        shown = "not shown" if has[0] < 0 else f"{has[0]}:{has[1]}"
        rows.append(control(f"ulimits.{name}", f"{pair.soft}:{pair.hard}", shown, where, ok=ok))
    return tuple(rows)


def _oom_score(found: Findings, asked: int) -> Control:
    text = found.view.files.get("/proc/self/oom_score_adj", "").strip()
    value = number(text)
    ok = value is not None and value >= asked
    where = "a command's /proc/self/oom_score_adj"
    if not ok and found.gvisor:
        value = number(str(found.host_config.get("OomScoreAdj")))
        ok, where = value == asked, "the engine: OomScoreAdj"
    return control("oom_score_adj", asked, value, where, ok=ok)
