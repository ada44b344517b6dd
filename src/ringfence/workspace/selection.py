"""What a walk chose of a tree."""

import hashlib
from functools import cached_property
from itertools import compress
from stat import S_ISDIR, S_ISREG

from ringfence.workspace.entries import Entry
from ringfence.workspace.rows import DEVICE, MODE, SIZE, Rows


class Selection:
    """What is visible and what is not.

    hidden: path to the reason, a directory ends with "/". special: devices, FIFOs, sockets and
    links out of the tree, by path, with the reason. git: paths called .git below the root, wherever
    they are. The entries are made when somebody asks for them, unless the walk made them.
    """

    def __init__(
        self,
        rows: Rows,
        hidden: dict[str, str],
        special: dict[str, str],
        git: list[str],
        *,
        entries: list[Entry] | None = None,
        digest: str | None = None,
    ) -> None:
        self.rows, self.hidden, self.special, self.git = rows, hidden, special, git
        if entries is not None:
            self.entries = entries
        if digest is not None:
            self.digest = digest

    @cached_property
    def entries(self) -> list[Entry]:
        """What is visible, each directory before what it holds."""
        return self.rows.entries()

    @cached_property
    def packed(self) -> bytes:
        """The entries in one piece; see `manifest.pack`."""
        return self.rows.packed()

    @cached_property
    def digest(self) -> str:
        """Of `packed`."""
        return hashlib.sha256(self.packed).hexdigest()

    @cached_property
    def _modes(self) -> list[int]:
        return list(self.rows.column(MODE))

    @property
    def count(self) -> int:
        """How many entries are visible."""
        return len(self._modes)

    @property
    def files(self) -> int:
        """How many files and links are visible."""
        return sum(not S_ISDIR(mode) for mode in self._modes)

    @property
    def size(self) -> int:
        """Bytes of the visible files."""
        return sum(compress(self.rows.column(SIZE), map(S_ISREG, self._modes)))

    @property
    def set_ids(self) -> bool:
        """Whether a visible file has a set-user-id, set-group-id or sticky bit."""
        return any(mode & 0o7000 and S_ISREG(mode) for mode in self._modes)

    def names(self) -> set[str]:
        """The paths of visible files and links."""
        return set(compress(self.rows.paths, (not S_ISDIR(mode) for mode in self._modes)))

    def elsewhere(self, device: int) -> str | None:
        """The first visible path that is on another file system."""
        devices = self.rows.column(DEVICE)
        if devices.count(device) == len(devices):
            return None
        return next(p for p, d in zip(self.rows.paths, devices, strict=True) if d != device)


def nothing() -> Selection:
    """Of a tree that is not walked."""
    return Selection(Rows(b"", b"", b""), {}, {}, [])
