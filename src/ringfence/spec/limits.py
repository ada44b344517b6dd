"""How much of the machine a sandbox may use."""

from typing import Annotated

from pydantic import Field, model_validator

from ringfence.spec.model import Model
from ringfence.spec.quantity import Duration, Size

Count = Annotated[int, Field(gt=0, le=2**31 - 1)]


class Ulimit(Model):
    """A pair of resource limits as in setrlimit(2); `soft` is at most `hard`."""

    soft: Annotated[int, Field(ge=0, le=2**62)]
    hard: Annotated[int, Field(ge=0, le=2**62)]

    @model_validator(mode="before")
    @classmethod
    def _one_number_is_both(cls, data: object) -> object:
        if isinstance(data, int) and not isinstance(data, bool):
            return {"soft": data, "hard": data}
        return data

    @model_validator(mode="after")
    def _soft_is_at_most_hard(self) -> "Ulimit":
        if self.soft > self.hard:
            raise ValueError(f"soft {self.soft} is above hard {self.hard}")
        return self


class Ulimits(Model):
    """Resource limits of every command; None leaves the profile's. Units are setrlimit(2)'s."""

    nofile: Ulimit | None = None
    core: Ulimit | None = None
    memlock: Ulimit | None = None
    msgqueue: Ulimit | None = None
    fsize: Ulimit | None = None
    nproc: Ulimit | None = None
    stack: Ulimit | None = None
    cpu: Ulimit | None = None


class Limits(Model):
    """Limits of one sandbox; None means the profile's value.

    memory: bytes of RAM, swap included, for everything in the sandbox, its tmpfs files too.
    cpus: cores' worth of time. pids: processes and threads of the commands.
    tmp, shm, run: bytes of the tmpfs at /tmp, /dev/shm and /run.
    timeout: seconds one exec may take. output: bytes kept of each stream of one exec.
    """

    memory: Size | None = None
    cpus: Annotated[float, Field(gt=0, le=4096)] | None = None
    pids: Count | None = None
    tmp: Size | None = None
    shm: Size | None = None
    run: Size | None = None
    timeout: Duration | None = None
    output: Size | None = None
    ulimits: Ulimits = Ulimits()
