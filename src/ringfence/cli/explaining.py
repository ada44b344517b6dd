"""Why a command ended, in words."""

from typing import Any

from ringfence.cli import output


def explain(result: Any, json: bool, ended: str | None) -> None:
    """A sentence on stderr where the exit code alone does not say what happened. ended: why the
    sandbox did, where it has."""
    if json or result.reason == "exited":
        return
    if result.error:
        output.note(output.escape_text(result.error))
    elif result.reason == "sandbox_lost":
        why = "`ringfence ps --all` may know why" if ended in (None, "lost") else ended
        output.note(f"the sandbox ended before the command: {why}")
    elif result.reason != "signaled":
        output.note(f"the command ended by {result.reason} after {result.duration:.1f} s")
