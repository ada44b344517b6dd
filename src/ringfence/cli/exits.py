"""A verb's return value is the process's exit code, and so is its error."""

import functools
from collections.abc import Callable
from typing import Any

import typer

from ringfence.backends import exhausted
from ringfence.cli import FAILED, UNREAD, USAGE, output
from ringfence.errors import Category, InvalidSpecError, ResourceExhaustedError, SandboxError


def exits(function: Callable[..., int]) -> Callable[..., None]:
    """Let a verb that returns its exit code end the process with it, one that fails or is
    interrupted tell its error, with its --json as a document, and one whose output nobody reads any
    more end with what a shell shows of a SIGPIPE. An error that is none of ours is raised then, for
    who called it to note."""

    @functools.wraps(function)
    def verb(*arguments: Any, **options: Any) -> None:
        try:
            code = _code(functools.partial(function, *arguments, **options), options)
        except BrokenPipeError:
            output.silence()
            code = UNREAD
        raise typer.Exit(code)

    return verb


def _code(verb: Callable[[], int], options: dict[str, Any]) -> int:
    try:
        return verb()
    except SandboxError as error:
        output.error(error, json=options.get("json", False))
        return USAGE if isinstance(error, InvalidSpecError) and error.op == "usage" else FAILED
    except (KeyboardInterrupt, typer.Exit):
        if options.get("json", False):
            output.document({"error": _interrupted()})
        raise
    except (OSError, RuntimeError) as error:
        failure = None if isinstance(error, BrokenPipeError) else foreign(error)
        if failure is not None and options.get("json", False):
            output.document({"error": failure.to_dict()})
        raise


def foreign(error: OSError | RuntimeError) -> SandboxError | None:
    """What is told of an error that is none of ours; None for a mistake."""
    run_out = exhausted.told(error)
    kind = SandboxError if run_out is None else ResourceExhaustedError
    if isinstance(error, OSError):
        return kind(str(error), context={} if error.errno is None else {"errno": error.errno})
    return None if run_out is None else kind(run_out)


def _interrupted() -> dict[str, Any]:
    """Why there is no answer after a Ctrl-C or a SIGTERM. No error of the library, which raises
    what Python does then."""
    error = SandboxError("it was interrupted before it had an answer")
    return {**error.to_dict(), "code": "interrupted", "category": str(Category.FAILED)}
