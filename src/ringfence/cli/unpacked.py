"""`ringfence image prune --unpacked`: what the process backend keeps of images."""

import time
from typing import Any

from ringfence.cli import output
from ringfence.cli.pairs import misuse
from ringfence.cli.translate import translated

AGE = "7d"


def prune(older_than: str, *, dry_run: bool, json: bool) -> int:
    """Remove images that no sandbox uses and none wanted for that long. Prints what went."""
    from ringfence.backends.process import unpacked
    from ringfence.backends.state import state_directory
    from ringfence.spec.quantity import parse_duration

    try:
        seconds = parse_duration(older_than)
    except ValueError as error:
        raise misuse(f"--older-than: {error}") from None
    with translated("image"):
        directory = state_directory() / "process"
        gone = unpacked.prune(directory, older_than=seconds, dry_run=dry_run)
    if json:
        output.document([image.to_dict() for image in gone])
        return 0
    if gone:
        output.table(("digest", "size", "unused"), [_row(image) for image in gone])
    total = output.size(sum(image.size for image in gone))
    verb = "would be removed" if dry_run else "removed"
    output.note(f"{len(gone)} images, {total}, {verb}")
    return 0


def _row(image: Any) -> tuple[str, str, str]:
    return image.digest, output.size(image.size), output.span(time.time() - image.used)
