"""A verb's return value is the process's exit code."""

import functools
from collections.abc import Callable
from typing import Any

import typer

from ringfence.cli import UNREAD, output


def exits(function: Callable[..., int]) -> Callable[..., None]:
    """Let a verb that returns its exit code end the process with it, and one whose output nobody
    reads any more with what a shell shows of a SIGPIPE."""

    @functools.wraps(function)
    def verb(*arguments: Any, **options: Any) -> None:
        try:
            code = function(*arguments, **options)
        except BrokenPipeError:
            output.silence()
            code = UNREAD
        raise typer.Exit(code)

    return verb
