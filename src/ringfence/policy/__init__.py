"""Pure: what a request is granted."""

from ringfence.policy.bounds import check_ceiling, outside
from ringfence.policy.ceiling import NO_CEILING, Ceiling, load_ceiling, machine_ceiling
from ringfence.policy.facts import Facts, ImageFacts
from ringfence.policy.profiles import PROFILES, Profile
from ringfence.policy.resolve import Grant, check_limits, grant, resolve

__all__ = [
    "NO_CEILING",
    "PROFILES",
    "Ceiling",
    "Facts",
    "Grant",
    "ImageFacts",
    "Profile",
    "check_ceiling",
    "check_limits",
    "grant",
    "load_ceiling",
    "machine_ceiling",
    "outside",
    "resolve",
]
