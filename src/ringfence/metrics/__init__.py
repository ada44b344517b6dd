"""What a sandbox uses, read from the kernel's cgroup files (versions 1 and 2)."""

from ringfence.metrics.places import Place, open_cpu_counter, places, places_apart, places_of
from ringfence.metrics.reader import Reader, reader_for, reader_of
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
