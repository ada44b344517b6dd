"""How a sandbox is confined beyond its limits."""

import posixpath
import re
from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from ringfence.spec.model import Model, Texts, check_inside_path, check_text
from ringfence.spec.names import CAPABILITIES, GRANTABLE, PROFILES, check_control, nearest
from ringfence.spec.quantity import Size

_SYSCTLS = ("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall",
            "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced")  # fmt: skip
_SYSCTL_PREFIXES = ("fs.mqueue.", "net.ipv4.", "net.ipv6.", "net.core.")
_NAME = re.compile(r"[A-Za-z0-9_./:@^-]{1,128}")
_DEVICE = re.compile(r"/dev/[A-Za-z0-9._/-]{1,128}")
_DEVICES = ("/dev/fuse", "/dev/kvm", "/dev/net/tun", "/dev/nvidia0", "/dev/dri/renderD128")
_FORBIDDEN_DEVICES = re.compile(
    r"/dev/(?:mem|kmem|port|sd|hd|vd|xvd|nvme|loop|dm-|md|mapper|disk|block|vsock|vhost|hpet|"
    r"tty|pts|ptmx|console|kmsg|snapshot|watchdog|cpu|mcelog|rtc|sg|bsg|input|uinput|shm|mqueue|"
    r"fd|std|zram|nbd|ram|mmcblk|dasd|pmem|mtd|ubi|ublk|sr\d|st\d|nst|drbd|rbd|bcache|raw|root|vfio|"
    r"userfaultfd|nvram|uhid|hidraw|vcs|hvc|cuse|btrfs-control|autofs)"
)


class Security(Model):
    """None means the profile's value.

    What would undo the sandbox (privileged, host namespaces, the daemon's socket, an unconfined
    seccomp, privileges gained by exec) cannot be written here.

    user_namespace: True asks for one of its own (the daemon's remap). read_only_root,
    capabilities (of commands, names without CAP_) and the user root are relaxed only under
    `permissive`. seccomp: a built-in profile's name or the path of an OCI profile in JSON.
    seccomp_allow: syscalls added to it. apparmor: profile name. selinux: label. masked_paths,
    read_only_paths: added to the profile's. tmpfs: further tmpfs by path, with sizes in bytes.
    devices: device files of the host. groups: supplementary group ids of commands. tmp_exec:
    whether programs may be run from /tmp. runtime: the OCI runtime by its name on the daemon, such
    as "runsc"; only by explicit choice. allow_degraded: names of controls (as in the receipt) that
    may be missing.
    """

    user_namespace: bool | None = None
    read_only_root: bool | None = None
    no_new_privileges: Literal[True] = True
    capabilities: tuple[str, ...] | None = None
    seccomp: str | None = None
    seccomp_allow: tuple[str, ...] = ()
    apparmor: str | None = None
    selinux: str | None = None
    masked_paths: tuple[str, ...] | None = None
    read_only_paths: tuple[str, ...] | None = None
    tmpfs: Mapping[str, Size] = Field(default_factory=dict)
    devices: tuple[str, ...] = ()
    ipc: Literal["private"] = "private"
    uts: Literal["private"] = "private"
    cgroup: Literal["private"] = "private"
    sysctls: Mapping[str, str] = Field(default_factory=dict)
    groups: tuple[Annotated[int, Field(ge=1, le=65533)], ...] = ()
    oom_score_adj: Annotated[int, Field(ge=0, le=1000)] | None = None
    tmp_exec: bool | None = None
    runtime: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = None
    allow_degraded: tuple[str, ...] = ()

    if TYPE_CHECKING:  # what a type checker lets pass: sizes as texts and lists, too

        def __init__(
            self,
            *,
            user_namespace: bool | None = None,
            read_only_root: bool | None = None,
            no_new_privileges: Literal[True] = True,
            capabilities: Texts | Set[str] | None = None,
            seccomp: str | None = None,
            seccomp_allow: Texts = (),
            apparmor: str | None = None,
            selinux: str | None = None,
            masked_paths: Texts | None = None,
            read_only_paths: Texts | None = None,
            tmpfs: Mapping[str, int | str] = ...,
            devices: Texts = (),
            ipc: Literal["private"] = "private",
            uts: Literal["private"] = "private",
            cgroup: Literal["private"] = "private",
            sysctls: Mapping[str, str] = ...,
            groups: tuple[int, ...] | list[int] = (),
            oom_score_adj: int | None = None,
            tmp_exec: bool | None = None,
            runtime: str | None = None,
            allow_degraded: Texts = (),
        ) -> None: ...

    @field_validator("capabilities", mode="before")
    @classmethod
    def _capabilities(cls, value: Any) -> Any:
        if value is None or isinstance(value, str):
            return value
        return tuple(sorted({check_capability(name) for name in value}))

    @field_validator("seccomp")
    @classmethod
    def _seccomp(cls, value: str | None) -> str | None:
        if value is None or value in PROFILES:
            return value
        if value == "unconfined":
            raise ValueError("an unconfined seccomp cannot be asked for")
        if "/" not in value:
            raise ValueError(
                f"no built-in seccomp profile has that name{nearest(value, PROFILES)}"
                " (the path of a profile of your own holds a '/')"
            )
        return check_text(value, "seccomp")

    @field_validator("apparmor", "selinux")
    @classmethod
    def _label(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if value in ("unconfined", "disable", ""):
            raise ValueError("confinement cannot be switched off here: leave it out instead")
        if not _NAME.fullmatch(value):
            raise ValueError("a profile or label holds letters, digits and _./:@^- only")
        return value

    @field_validator("masked_paths", "read_only_paths")
    @classmethod
    def _paths(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for path in value or ():
            check_text(path, "path")
            if posixpath.normpath("/" + path.lstrip("/")) != path or path == "/":
                raise ValueError(f"{path!r} is not an absolute, normalised path below /")
        return value

    @field_validator("tmpfs")
    @classmethod
    def _tmpfs(cls, value: Mapping[str, int]) -> Mapping[str, int]:
        for path in value:
            check_inside_path(path, "a tmpfs path")
            if path in ("/", "/tmp", "/run"):  # noqa: S108 - a name inside the sandbox
                raise ValueError(f"{path} is sized by limits.tmp and limits.run, / cannot be one")
        return value

    @field_validator("devices")
    @classmethod
    def _devices(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for device in value:
            if not _DEVICE.fullmatch(device) or posixpath.normpath(device) != device:
                raise ValueError(f"{device!r} is not a device{nearest(device, _DEVICES)}")
            if _FORBIDDEN_DEVICES.match(device):
                raise ValueError(f"{device!r} would open the host: it cannot be given to a sandbox")
        return value

    @field_validator("sysctls")
    @classmethod
    def _sysctls(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for name, text in value.items():
            if name not in _SYSCTLS and not name.startswith(_SYSCTL_PREFIXES):
                known = (*_SYSCTLS, *(prefix + "*" for prefix in _SYSCTL_PREFIXES))
                raise ValueError(f"{name!r} is not kept per sandbox{nearest(name, known)}")
            if ".." in name or "/" in name or not re.fullmatch(r"[\w. \t-]{1,200}", text):
                raise ValueError(f"{name}={text!r} is not a sysctl setting")
        return value

    @field_validator("allow_degraded")
    @classmethod
    def _allow_degraded(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_text(check_control(name), "a control") for name in value)


def check_capability(value: object) -> str:
    """A capability's name without CAP_, if a sandbox can have it at all; else ValueError."""
    if not isinstance(value, str):
        raise ValueError("a capability is a name such as CHOWN")
    name = value.upper().removeprefix("CAP_")
    if name not in CAPABILITIES:
        raise ValueError(f"{value!r} is not a capability{nearest(name, CAPABILITIES)}")
    if name not in GRANTABLE:
        raise ValueError(
            f"{name} cannot be given to a sandbox; under permissive {', '.join(sorted(GRANTABLE))}"
        )
    return name
