"""Pure: what a request is granted."""

from ringfence.policy.ceiling import Ceiling, load_ceiling, machine_ceiling
from ringfence.policy.facts import Facts, ImageFacts
from ringfence.policy.profiles import PROFILES, Profile
from ringfence.policy.resolve import Grant, grant, resolve

__all__ = [
    "PROFILES",
    "Ceiling",
    "Facts",
    "Grant",
    "ImageFacts",
    "Profile",
    "grant",
    "load_ceiling",
    "machine_ceiling",
    "resolve",
]
