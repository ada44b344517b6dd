"""A repository of ours that shows the objects and references of one of the host, and nothing else.

Git may be run in it: there is no configuration, hook or attribute in it that we did not write.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ringfence.workspace.beneath import DIRECTORY_FLAGS, remove_tree
from ringfence.workspace.gitdir import Commits, GitDirectory
from ringfence.workspace.objects import lend

_LENT = "lent"
_DIRECTORIES = ("", "objects", "objects/info", "objects/pack", "refs", "refs/heads", "refs/tags")


def mirror(source: GitDirectory, target: Path, commits: Commits) -> None:
    """Make the repository `target`, a directory that does not exist yet. commits: what is shown of
    `source`, as it is or was.

    Call `give_back` before anything else is done to the files in it. Errors are those of
    `objects.lend`. It blocks.
    """
    for part in _DIRECTORIES:
        (target / part).mkdir(mode=0o755)
    configure(target, sha256=commits.sha256)
    lend(source.objects, target / _LENT)
    (target / "objects/info/alternates").write_text(f"../{_LENT}\n")
    if commits.shallow:
        (target / "shallow").write_text("".join(f"{name}\n" for name in commits.shallow))
    refer(target, dict(commits.references), commits.head)


def configure(target: Path, *, sha256: bool) -> None:
    """Give it the configuration that a new repository has."""
    extension = "[extensions]\n\tobjectFormat = sha256\n" if sha256 else ""
    (target / "config").write_text(
        f"[core]\n\trepositoryformatversion = {1 if extension else 0}\n\tfilemode = true\n"
        f"\tbare = false\n\tlogallrefupdates = true\n{extension}"
    )


def refer(target: Path, references: dict[str, str], head: str | None) -> None:
    """Let these be its references, and HEAD say so."""
    lines = "".join(f"{name} {ref}\n" for ref, name in sorted(references.items()))
    (target / "packed-refs").write_text("# pack-refs with: sorted \n" + lines)
    (target / "HEAD").write_text((head or "ref: refs/heads/main") + "\n")


def give_back(target: Path) -> None:
    """Let go of the objects that were lent to it."""
    (target / "objects/info/alternates").unlink()
    remove(target / _LENT)


@contextmanager
def mirrored(source: GitDirectory, target: Path) -> Iterator[str]:
    """The URL of a mirror that lives as long as the block; see `mirror`."""
    try:
        mirror(source, target, source.commits())
        yield target.as_uri()
    finally:
        remove(target)


def remove(path: Path) -> None:
    """Remove a directory that we made, with all below it."""
    parent = os.open(path.parent, DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
    try:
        remove_tree(parent, path.name)
    finally:
        os.close(parent)
