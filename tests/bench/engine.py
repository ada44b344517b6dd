"""The peer: the same with plain Engine API calls on one kept connection."""

import aiodocker

IMAGE = "ringfence-test/busybox"


async def start(
    docker: aiodocker.Docker, command: list[str] | None = None
) -> aiodocker.containers.DockerContainer:
    """A container with the usual flags and no network, started."""
    container = await create(docker, command)
    await container.start()
    return container


async def create(
    docker: aiodocker.Docker, command: list[str] | None = None
) -> aiodocker.containers.DockerContainer:
    """The same, created only."""
    config = {
        "Image": IMAGE,
        "Cmd": command or ["sleep", "3600"],
        "HostConfig": {"NetworkMode": "none", "LogConfig": {"Type": "none"}},
    }
    return await docker.containers.create(config)


async def execute(container: aiodocker.containers.DockerContainer, args: list[str]) -> int:
    """exec create + start + inspect; the bytes of output."""
    call = await container.exec(args)
    size = 0
    async with call.start() as stream:
        while message := await stream.read_out():
            size += len(message.data)
    await call.inspect()
    return size


async def remove(container: aiodocker.containers.DockerContainer) -> None:
    """Killed and removed."""
    await container.delete(force=True)
