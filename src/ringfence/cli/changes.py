"""What `ringfence run` does with the changes of its command: a patch, or applied."""

import asyncio
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ringfence.cli import output
from ringfence.errors import InvalidSpecError, SandboxError

if TYPE_CHECKING:
    from ringfence.spec import SandboxSpec


def check_patch(patch: Path | None, apply: bool, spec: "SandboxSpec") -> None:
    """InvalidSpecError for what could not be written or applied in the end."""
    if (patch or apply) and (spec.repository is None or spec.repository.mode != "copy"):
        raise InvalidSpecError("--patch and --apply need --repo in mode copy", op="usage")
    if patch is not None and str(patch) == "-":
        raise InvalidSpecError(
            "--patch -: standard output is the command's; name a file, or take it from --json",
            op="usage",
        )
    if patch is not None and not _writable(patch):
        raise InvalidSpecError(f"--patch: {patch} cannot be written", op="usage")


def _writable(file: Path) -> bool:
    """Whether a file can be written: better known before a command runs than after it."""
    try:
        place = file if file.exists() else file.parent
        return not file.is_dir() and os.access(place, os.W_OK)
    except OSError:
        return False


async def changes(
    sandbox: Any, patch: Path | None, apply: bool
) -> tuple[dict[str, Any], SandboxError | None]:
    """Write and apply what the command changed; a summary on stderr. What became of it, and what
    went wrong: a result that took an hour is not lost for that."""
    from ringfence.spec.results import named_bytes

    try:
        found = await sandbox.workspace.diff()
    except SandboxError as error:
        return {"applied": False}, error
    out = {**named_bytes("patch", found.data), "applied": False}
    written = False
    try:
        if patch is not None:
            await asyncio.to_thread(write, patch, found.data)
            written = True
        if found.stat:
            output.note(f"changes\n{output.escape_text(found.stat.rstrip())}")
        if apply:
            await sandbox.workspace.apply()
    except SandboxError as error:
        if found.data and not written:
            output.note(await asyncio.to_thread(_kept, found.data))
        return out, error
    return {**out, "applied": apply}, None


def write(file: Path, data: bytes, doing: str = "--patch") -> None:
    """Write a patch, or leave none: half of one might apply. A file that was there and cannot be
    opened stays."""
    begun = False
    try:
        with file.open("wb") as stream:
            begun = True
            stream.write(data)
    except OSError as error:
        from ringfence.workspace.failures import failed

        if begun and file.is_file():
            file.unlink(missing_ok=True)
        raise failed(error, file, doing) from None


def _kept(data: bytes) -> str:
    """Write a patch into a new temporary file; what became of it, in words."""
    try:
        number, name = tempfile.mkstemp(prefix="ringfence-", suffix=".patch")
        os.close(number)
        write(Path(name), data, "writing them")
    except OSError as error:
        return f"the changes could not be kept as a patch: {error.strerror}"
    except SandboxError as error:
        return f"the changes could not be kept as a patch: {error}"
    return f"the changes are kept as a patch in {name}"
