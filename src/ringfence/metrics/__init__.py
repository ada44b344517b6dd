"""What a sandbox uses, read from the kernel's cgroup files (versions 1 and 2)."""

from typing import TYPE_CHECKING, Any

from ringfence.metrics.places import Place, open_cpu_counter, places, places_apart, places_of
from ringfence.metrics.reader import Reader, reader_for, reader_of

if TYPE_CHECKING:
    from ringfence.metrics.sampler import Sample, Sampler

__all__ = [
    "Place",
    "Reader",
    "Sample",
    "Sampler",
    "open_cpu_counter",
    "places",
    "places_apart",
    "places_of",
    "reader_for",
    "reader_of",
]


def __getattr__(name: str) -> Any:
    """Sample and Sampler, loaded when they are first used: a sandbox is opened without them."""
    if name not in ("Sample", "Sampler"):
        raise AttributeError(f"module 'ringfence.metrics' has no attribute {name!r}")
    from ringfence.metrics import sampler

    return getattr(sampler, name)
