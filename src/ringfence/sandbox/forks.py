"""Sandboxes that start from the present state of one whose root file system may be written."""

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ringfence.backends.finish import finish
from ringfence.errors import InvalidSpecError
from ringfence.sandbox.context import Context
from ringfence.sandbox.snapshots import not_kept
from ringfence.sandbox.workspace import Again, Workspace, forked, frozen, opened
from ringfence.workspace import Prepared

if TYPE_CHECKING:
    from ringfence.sandbox.sandbox import Sandbox


@runtime_checkable
class Branching(Protocol):
    """An instance whose root file system can be the image of others."""

    async def branch(self) -> str:
        """An image of it, which goes with the last instance that is made of it; its id."""
        ...

    async def drop(self, image: str) -> None:
        """Remove an image that `branch` made, unless an instance needs it. Idempotent."""
        ...


async def fork_whole(
    context: Context, workspace: Workspace | None, again: Again | None, number: int
) -> "list[Sandbox]":
    """So many sandboxes on the present state of the root file system, and of the workspace if there
    is one; both are of one moment. See `Sandbox.fork`."""
    instance = context.life.instance
    if not isinstance(instance, Branching) or again is None:
        raise not_kept(context.spec, "fork")
    if number < 1:
        raise InvalidSpecError("fork takes a number above 0", op="fork")
    images: list[str] = []
    try:
        async with AsyncExitStack() as undo:
            made: list[Prepared | None] = [None] * number
            async with frozen(context):
                if workspace is not None:
                    made[:] = await undo.enter_async_context(forked(workspace, number))
                images.append(await instance.branch())
            return await opened([again(one, *images) for one in made])
    except BaseException:
        for image in images:
            await finish(instance.drop(image))
        raise
