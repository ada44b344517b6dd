"""The directory of one sandbox, bound read-only into it, in which its door opens."""

import shutil
from pathlib import Path

from ringfence.errors import AlreadyExistsError


def make_directory(path: Path) -> None:
    """The directory of one sandbox: others may pass, nobody else may write.

    AlreadyExistsError when there is one: the id is taken.
    """
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    try:
        path.mkdir()
    except FileExistsError:
        raise AlreadyExistsError(
            f"create: there is a sandbox {path.name} already", op="create", sandbox_id=path.name
        ) from None
    path.chmod(0o711)


def remove_directory(path: Path) -> None:
    """Remove what `make_directory` made. Idempotent."""
    shutil.rmtree(path, ignore_errors=True)
