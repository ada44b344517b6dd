"""NAME=VALUE on a command line, and the error for what is written wrongly there."""

import os

from ringfence.errors import InvalidSpecError


def pair(text: str, option: str, *, inherit: bool = False) -> tuple[str, str]:
    """NAME=VALUE of an option; with inherit, NAME alone takes this process's value."""
    name, equals, value = text.partition("=")
    if not equals and inherit and name in os.environ:
        return name, os.environ[name]
    if not equals and inherit:
        raise misuse(f"{option} {text!r}: it is not set here: write NAME=VALUE, or export it")
    if not equals:
        raise misuse(f"{option} {text!r}: write NAME=VALUE")
    return name, value


def misuse(message: str) -> InvalidSpecError:
    """What is wrong with how a verb was called."""
    return InvalidSpecError(message, op="usage")
