"""`ringfence image prune --unpacked`: what the process backend keeps of images."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ringfence.cli import output
from ringfence.cli.pairs import misuse
from ringfence.cli.translate import translated

if TYPE_CHECKING:
    from ringfence.backends.process.unpacked import Unpacked

AGE = "7d"


def prune(older_than: str, *, dry_run: bool, json: bool) -> int:
    """Remove images that no sandbox uses and none wanted for that long. Prints what went. 1 when
    one could not be removed."""
    from ringfence.backends.process import unpacked
    from ringfence.backends.state import state_directory
    from ringfence.spec.quantity import parse_duration

    try:
        seconds = parse_duration(older_than)
    except ValueError as error:
        raise misuse(f"--older-than: {error}") from None
    with translated("image"):
        directory = state_directory() / "process"
        found = unpacked.prune(directory, older_than=seconds, dry_run=dry_run)
    gone = [image for image in found if image.error is None]
    if json:
        output.document([image.to_dict() for image in found])
    else:
        _show(gone, dry_run=dry_run)
    for image in found:
        if image.error is not None:
            output.note(output.escape_text(image.error))
    return 0 if len(gone) == len(found) else 1


def _show(gone: Sequence["Unpacked"], *, dry_run: bool) -> None:
    if gone:
        output.table(("digest", "size", "unused"), [_row(image) for image in gone])
    total = output.size(sum(image.size for image in gone))
    verb = "would be removed" if dry_run else "removed"
    output.note(f"{len(gone)} images, {total}, {verb}")


def _row(image: "Unpacked") -> tuple[str | None, str, str]:
    return image.digest, output.size(image.size), output.span(time.time() - image.used)
