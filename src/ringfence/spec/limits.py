"""How much of the machine a sandbox may use."""

import re
import resource
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, WithJsonSchema, field_validator, model_validator

from ringfence.spec.model import Model
from ringfence.spec.quantity import Duration, NotTruth, Size, SizeOrZero

Count = Annotated[int, NotTruth, Field(gt=0, le=2**31 - 1)]

UNLIMITED = 2**63 - 1
"""A ulimit's value that stands for RLIM_INFINITY."""

_Value = Annotated[
    int,
    NotTruth,
    Field(ge=0, le=UNLIMITED),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 0}, {"const": "unlimited"}]}, mode="validation"
    ),
]

MOST_OUTPUT = 64 * 1024 * 1024
"""Bytes of one stream that a result can hold."""
_MOST_CPU = 10**9
"""Seconds of processor time that the kernel can calculate with, in nanoseconds."""
RESOURCES = {
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
    "core": resource.RLIMIT_CORE,
    "fsize": resource.RLIMIT_FSIZE,
    "memlock": resource.RLIMIT_MEMLOCK,
    "msgqueue": getattr(resource, "RLIMIT_MSGQUEUE", 12),
    "stack": resource.RLIMIT_STACK,
    "cpu": resource.RLIMIT_CPU,
    "rtprio": getattr(resource, "RLIMIT_RTPRIO", 14),
}
"""The ulimits as the kernel numbers them."""

PROC_NAMES = {
    "nofile": "Max open files",
    "nproc": "Max processes",
    "core": "Max core file size",
    "fsize": "Max file size",
    "memlock": "Max locked memory",
    "msgqueue": "Max msgqueue size",
    "stack": "Max stack size",
    "cpu": "Max cpu time",
    "rtprio": "Max realtime priority",
}
"""As /proc/PID/limits names them."""

_CORES = r"[0-9]{1,4}(?:-[0-9]{1,4})?"
_CPUSET = re.compile(rf"{_CORES}(?:,{_CORES})*")


class Ulimit(Model):
    """A pair of resource limits as in setrlimit(2), `soft` at most `hard`; "unlimited" too."""

    short_forms = ({"type": "integer", "minimum": 0}, {"const": "unlimited"})

    soft: _Value
    hard: _Value

    if TYPE_CHECKING:

        def __init__(
            self, *, soft: int | Literal["unlimited"], hard: int | Literal["unlimited"]
        ) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _one_number_is_both(cls, data: object) -> object:
        if data == "unlimited":
            return {"soft": UNLIMITED, "hard": UNLIMITED}
        if isinstance(data, int) and not isinstance(data, bool):
            return {"soft": data, "hard": data}
        if isinstance(data, dict):
            return {
                name: UNLIMITED if value == "unlimited" else value for name, value in data.items()
            }
        return data

    @model_validator(mode="after")
    def _soft_is_at_most_hard(self) -> "Ulimit":
        if self.soft > self.hard:
            raise ValueError(f"soft {self.soft} is above hard {self.hard}")
        return self


_UlimitForm = Ulimit | int | Literal["unlimited"] | Mapping[str, Any] | None


class Ulimits(Model):
    """Resource limits of every command; None leaves the profile's. Units are setrlimit(2)'s.

    nofile, nproc: counts. core, fsize, memlock, msgqueue, stack: bytes. cpu: seconds of one
    process. rtprio: the highest real-time priority.
    """

    nofile: Ulimit | None = None
    nproc: Ulimit | None = None
    core: Ulimit | None = None
    fsize: Ulimit | None = None
    memlock: Ulimit | None = None
    msgqueue: Ulimit | None = None
    stack: Ulimit | None = None
    cpu: Ulimit | None = None
    rtprio: Ulimit | None = None

    if TYPE_CHECKING:  # what a type checker lets pass: the short forms, too

        def __init__(
            self,
            *,
            nofile: _UlimitForm = None,
            nproc: _UlimitForm = None,
            core: _UlimitForm = None,
            fsize: _UlimitForm = None,
            memlock: _UlimitForm = None,
            msgqueue: _UlimitForm = None,
            stack: _UlimitForm = None,
            cpu: _UlimitForm = None,
            rtprio: _UlimitForm = None,
        ) -> None: ...

    @field_validator("cpu")
    @classmethod
    def _cpu(cls, value: Ulimit | None) -> Ulimit | None:
        for number in () if value is None else (value.soft, value.hard):
            if _MOST_CPU < number < UNLIMITED:
                raise ValueError(f"{number} seconds: at most {_MOST_CPU}, or 'unlimited'")
        return value


class Limits(Model):
    """Limits of one sandbox; None means the profile's value.

    memory: bytes of RAM, for everything in the sandbox, its tmpfs files too. swap: bytes of swap
    on top of that. cpus: cores' worth of time. cpuset: the cores it may run on ("0", "0-1,3").
    cpu_shares: weight against other sandboxes when cores are short (1024 is the usual one).
    pids: processes and threads of the commands. disk: bytes that may be written outside of tmpfs.
    tmp, shm, run: bytes of the tmpfs at /tmp, /dev/shm and /run. read_rate, write_rate: bytes a
    second of block input and output. network_rate: bytes a second through the egress proxy.
    cpu_time: seconds of processor time for the sandbox as a whole. timeout: seconds one exec may
    take. output: bytes kept of each stream of one exec.
    """

    memory: Size | None = None
    swap: SizeOrZero | None = None
    cpus: Annotated[float, NotTruth, Field(gt=0, le=4096, allow_inf_nan=False)] | None = None
    cpuset: str | None = None
    cpu_shares: Annotated[int, NotTruth, Field(ge=2, le=262144)] | None = None
    pids: Count | None = None
    disk: Size | None = None
    tmp: Size | None = None
    shm: Size | None = None
    run: Size | None = None
    read_rate: Size | None = None
    write_rate: Size | None = None
    network_rate: Size | None = None
    cpu_time: Duration | None = None
    timeout: Duration | None = None
    output: Annotated[Size, Field(le=MOST_OUTPUT)] | None = None
    ulimits: Ulimits = Ulimits.model_construct()

    if TYPE_CHECKING:  # what a type checker lets pass: sizes and durations as texts, too

        def __init__(
            self,
            *,
            memory: int | str | None = None,
            swap: int | str | None = None,
            cpus: float | None = None,
            cpuset: str | None = None,
            cpu_shares: int | None = None,
            pids: int | None = None,
            disk: int | str | None = None,
            tmp: int | str | None = None,
            shm: int | str | None = None,
            run: int | str | None = None,
            read_rate: int | str | None = None,
            write_rate: int | str | None = None,
            network_rate: int | str | None = None,
            cpu_time: float | str | None = None,
            timeout: float | str | None = None,
            output: int | str | None = None,
            ulimits: Ulimits | Mapping[str, Any] = ...,
        ) -> None: ...

    @field_validator("cpuset")
    @classmethod
    def _cpuset(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not _CPUSET.fullmatch(value):
            raise ValueError("a cpuset is a list of cores such as '0-1,3'")
        cores(value)
        return value


def cores(cpuset: str) -> frozenset[int]:
    """The numbers of a cpuset list such as "0-1,3"; ValueError when a range runs backwards."""
    found: set[int] = set()
    for part in cpuset.split(","):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if low > high:
            raise ValueError(f"the range {part} runs backwards: write {high}-{low}")
        found.update(range(low, high + 1))
    return frozenset(found)
