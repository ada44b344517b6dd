"""What is changed of a sandbox that runs: its limits and its end."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from ringfence.errors import InvalidSpecError, UnsupportedError
from ringfence.events import Extended, LimitsUpdated
from ringfence.policy import check_ceiling, check_limits
from ringfence.sandbox.context import Context
from ringfence.spec import Limits
from ringfence.spec.quantity import parse_duration

_OF_THE_SESSION = frozenset({"timeout", "output"})
_WITH_SWAP = frozenset({"memory", "swap"})


@runtime_checkable
class Updatable(Protocol):
    """An instance whose limits can change while it runs."""

    @property
    def changeable(self) -> frozenset[str]:
        """The names of those that can."""
        ...

    async def update(self, limits: Limits) -> None:
        """Put in force what is not None, all of it changeable. With memory comes its swap."""
        ...


async def extend(context: Context, lifetime: float | str) -> float:
    """See `Sandbox.extend`."""
    try:
        seconds = parse_duration(lifetime)
    except ValueError as error:
        raise InvalidSpecError(
            f"lifetime: {error}", op="extend", context={"fields": ["lifetime"]}
        ) from None
    check_ceiling("lifetime", seconds, context.ceiling.lifetime, op="extend")
    with context.operation("extend"):
        ends = await context.life.extend(seconds)
    context.bus.publish(Extended(sandbox_id=context.id, ends=ends))
    return ends


async def update(context: Context, limits: Limits) -> Limits:
    """See `Sandbox.update`."""
    instance = context.instance
    asked = limits.model_dump(exclude_none=True, exclude_defaults=True)
    able = instance.changeable if isinstance(instance, Updatable) else frozenset()
    lacking = sorted(set(asked) - able - _OF_THE_SESSION)
    if lacking:
        raise UnsupportedError(
            f"update: the {context.spec.backend} backend cannot change {', '.join(lacking)} while"
            " it runs",
            op="update",
            context={"fields": [f"limits.{name}" for name in lacking]},
        )
    async with context.changing:
        with context.operation("update"):
            check_limits(limits, await context.facts(), context.ceiling)
            merged = Limits(**{**dict(context.spec.limits), **asked})
            if isinstance(instance, Updatable) and not set(asked) <= _OF_THE_SESSION:
                await instance.update(_in_the_kernel(asked, merged))
            context.spec = context.spec.model_copy(update={"limits": merged})
            await context.life.note(context.spec)
    context.bus.publish(LimitsUpdated(sandbox_id=context.id, limits=asked))
    return merged


def _in_the_kernel(asked: Mapping[str, Any], merged: Limits) -> Limits:
    """What a kernel is told: memory and swap together, since it counts their sum."""
    names = set(asked) - _OF_THE_SESSION
    if names & _WITH_SWAP:
        names |= _WITH_SWAP
    return Limits(**{name: getattr(merged, name) for name in names})
