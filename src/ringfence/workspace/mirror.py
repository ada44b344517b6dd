"""A repository of ours that shows the objects and references of one of the host, and nothing else.

Git may be run in it: there is no configuration, hook or attribute in it that we did not write.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ringfence.workspace.beneath import DIRECTORY_FLAGS, remove_tree
from ringfence.workspace.gitdir import GitDirectory
from ringfence.workspace.isolated import git
from ringfence.workspace.objects import lend

_LENT = "lent"


def mirror(source: GitDirectory, target: Path) -> None:
    """Make the repository `target`, a directory that does not exist yet.

    Call `give_back` before anything else is done to the files in it. Errors are those of
    `isolated.git` and `objects.lend`. It blocks.
    """
    target.mkdir(mode=0o755)
    kind = "sha256" if source.sha256 else "sha1"
    git(
        ["init", "--quiet", "--template=", f"--object-format={kind}", "--initial-branch=main"],
        directory=target,
        env={"GIT_DIR": str(target)},
    )
    lend(source.objects, target / _LENT)
    (target / "objects/info").mkdir(exist_ok=True)
    (target / "objects/info/alternates").write_text(f"../{_LENT}\n")
    if shallow := source.shallow():
        (target / "shallow").write_text("".join(f"{name}\n" for name in shallow))
    refer(target, source.references(), source.head())


def refer(target: Path, references: dict[str, str], head: str | None) -> None:
    """Let these be its references, and HEAD say so."""
    lines = "".join(f"{name} {ref}\n" for ref, name in sorted(references.items()))
    (target / "packed-refs").write_text("# pack-refs with: sorted \n" + lines)
    (target / "HEAD").write_text((head or "ref: refs/heads/main") + "\n")


def give_back(target: Path) -> None:
    """Let go of the objects that were lent to it."""
    (target / "objects/info/alternates").unlink()
    _remove(target / _LENT)


@contextmanager
def mirrored(source: GitDirectory, target: Path) -> Iterator[str]:
    """The URL of a mirror that lives as long as the block; see `mirror`."""
    try:
        mirror(source, target)
        yield target.as_uri()
    finally:
        _remove(target)


def _remove(path: Path) -> None:
    parent = os.open(path.parent, DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
    try:
        remove_tree(parent, path.name)
    finally:
        os.close(parent)
