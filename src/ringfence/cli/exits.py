"""A verb's return value is the process's exit code."""

import functools
from collections.abc import Callable
from typing import Any

import typer


def exits(function: Callable[..., int]) -> Callable[..., None]:
    """Let a verb that returns its exit code end the process with it."""

    @functools.wraps(function)
    def verb(*arguments: Any, **options: Any) -> None:
        raise typer.Exit(function(*arguments, **options))

    return verb
