"""How a sandbox is confined beyond its limits."""

from typing import Annotated, Literal

from pydantic import Field

from ringfence.spec.model import Model

ProfileName = Literal["strict", "standard", "permissive"]


class Security(Model):
    """None means the profile's value.

    What would undo the sandbox (privileged, host namespaces, added capabilities, an unconfined
    seccomp) cannot be written here.

    tmp_exec: whether programs may be run from /tmp.
    runtime: the OCI runtime by its name on the daemon, such as "runsc"; only by explicit choice.
    """

    tmp_exec: bool | None = None
    runtime: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = None
