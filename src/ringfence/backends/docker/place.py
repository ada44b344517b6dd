"""How the guest gets into a container: bound from here, or in a volume for a daemon elsewhere."""

import asyncio
import contextlib
import hashlib
import io
import secrets
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ringfence.backends.docker.config import Placement
from ringfence.backends.docker.endpoint import Endpoint
from ringfence.backends.docker.engine import Engine
from ringfence.backends.docker.probing import VOLUME, VOLUMES
from ringfence.backends.finish import finish
from ringfence.backends.hosts import LOCALHOST
from ringfence.backends.state import state_directory
from ringfence.errors import BackendUnavailableError, ImageError, NotFoundError, SandboxError
from ringfence.guest import build

INSIDE = "/.ringfence"
_GUEST = "guest"
_DONE = "filled"
_RUN = f"{INSIDE}/run"
_NO_VOLUMES = ((INSIDE[1:],), ("proc",))
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def guest_binary(architecture: str) -> Path:
    """The guest for an image's architecture (Go's name). BackendUnavailableError without one."""
    machine = _MACHINES.get(architecture, architecture)
    path = build.target(machine)
    if not path.exists():
        raise BackendUnavailableError(
            f"there is no guest for {machine}: build it with python -m ringfence.guest.build",
            op="create",
            context={"architecture": architecture},
        )
    build.keep_private(path)
    return path


def check_volumes(volumes: Sequence[str]) -> None:
    """ImageError for an image that declares a volume where the guest is; below /proc, where a
    runtime says how what it starts is confined; or without a place, which Engines make a directory
    of the host's without a limit."""
    for path in volumes:
        if not path.startswith("/") or Path(path).parts[1:2] in _NO_VOLUMES:
            raise ImageError(
                f"image: it declares {path!r} as a volume: one that is below {INSIDE} or /proc, or"
                " not absolute, is not made: use an image without that",
                op="create",
            )


def run_directories(endpoint: Endpoint) -> Path:
    """Where the directories of the sandboxes of one endpoint are."""
    name = hashlib.sha256(endpoint.url.encode()).hexdigest()[:12]
    return state_directory() / "docker" / name


def hosts_file() -> Path:
    """The file that names localhost for containers without a network: an Engine makes none for
    these. OSError."""
    path = state_directory() / "docker" / "hosts"
    with contextlib.suppress(FileNotFoundError):
        if path.read_text() == LOCALHOST:
            return path
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    new = path.with_name(f".hosts-{secrets.token_hex(6)}")
    new.write_text(LOCALHOST)
    new.chmod(0o644)  # whatever the umask is: commands read it
    new.replace(path)
    return path


def on_socket(directory: Path, guest: Path) -> Placement:
    """The guest bound from this machine, dialling the host's socket in `directory`."""
    mounts = [_bound(guest, f"{INSIDE}/{_GUEST}"), _bound(directory, _RUN)]
    return Placement([f"{INSIDE}/{_GUEST}", "--socket", _RUN], mounts, stream=False)


def on_stream(guest: Path, marker: bytes) -> Placement:
    """The guest bound from this machine, on the container's stdin and stdout."""
    mounts = [_bound(guest, f"{INSIDE}/{_GUEST}")]
    return Placement(_stream_args(marker), mounts, stream=True)


def on_volume(volume: str, marker: bytes) -> Placement:
    """The guest from a volume of the daemon's, on the container's stdin and stdout."""
    mount = {**_guests_volume(volume), "ReadOnly": True}
    return Placement(_stream_args(marker), [mount], stream=True)


def _stream_args(marker: bytes) -> Sequence[str]:
    resync = ["--marker", marker.hex()] if marker else []
    return [f"{INSIDE}/{_GUEST}", "--stream", *resync]


def _bound(source: Path, target: str) -> dict[str, object]:
    return {
        "Type": "bind",
        "Source": str(source),
        "Target": target,
        "ReadOnly": True,
        "BindOptions": {"Propagation": "rprivate", "NonRecursive": True},
    }


async def fill_volume(engine: Engine, image: str, guest: Path) -> str:
    """The name of a volume on the daemon that holds this guest; made and filled when missing.

    It is filled through a container that is never started. Volumes are named by the guest's
    digest and are left for the next sandbox. Cancellation leaves no container.
    """
    binary = await asyncio.to_thread(guest.read_bytes)
    volume = f"{VOLUMES}{hashlib.sha256(binary).hexdigest()[:16]}"
    mount = _guests_volume(volume)
    body = {
        "Image": image,
        "Cmd": ["/"],
        "NetworkDisabled": True,
        "HostConfig": {"Mounts": [mount], "NetworkMode": "none"},
        "Labels": {VOLUME: volume},
    }
    await engine.post(
        "volume", "volumes", "create", body={"Name": volume, "Labels": {"ringfence.guest": "1"}}
    )
    container = f"{volume}-{secrets.token_hex(6)}"
    try:
        await finish(engine.post("create", "containers", "create", body=body, name=container))
        if not await _is_filled(engine, container):
            await engine.request(
                "fill", "PUT", ("containers", container, "archive"), {"path": INSIDE}, _tar(binary)
            )
    finally:
        await finish(_remove(engine, container))
    return volume


def _guests_volume(volume: str) -> dict[str, Any]:
    """Without NoCopy an Engine would fill a new one with what the image has there."""
    options = {"NoCopy": True}
    return {"Type": "volume", "Source": volume, "Target": INSIDE, "VolumeOptions": options}


async def _is_filled(engine: Engine, container: str) -> bool:
    path = {"path": f"{INSIDE}/{_DONE}"}
    try:
        await engine.request("fill", "HEAD", ("containers", container, "archive"), path)
    except NotFoundError:
        return False
    return True


async def _remove(engine: Engine, container: str) -> None:
    try:
        await engine.request(
            "fill", "DELETE", ("containers", container), {"force": True, "v": True}
        )
    except SandboxError as error:
        if error.context.get("status") not in (404, 409):
            raise


def _tar(binary: bytes) -> bytes:
    """The guest, and behind it the mark that it is complete."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data, mode in ((_GUEST, binary, 0o755), (_DONE, b"", 0o444)):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), mode
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()
