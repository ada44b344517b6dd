"""Freezing a container through its cgroup: fifty times faster than asking the Engine."""

import asyncio
from pathlib import Path

from ringfence.errors import DeadlineExceededError, StateError
from ringfence.metrics import Place, places_of

_SECONDS = 5.0
_FIRST_PAUSE = 0.0002
_LONGEST_PAUSE = 0.01


class Freezer:
    """The freezer of one cgroup, version 1 or 2."""

    def __init__(self, place: Place) -> None:
        directory = Path(place.directory)
        self._one = place.version == 1
        self._switch = directory / ("freezer.state" if self._one else "cgroup.freeze")
        self._events = directory / "cgroup.events"

    def frozen(self) -> bool:
        """Whether everything in it is frozen. False when it is gone."""
        try:
            if self._one:
                return self._switch.read_text().strip() == "FROZEN"
            return "frozen 1" in self._events.read_text()
        except OSError:
            return False

    def usable(self) -> bool:
        """Whether this process may turn it."""
        try:
            with self._switch.open("r+"):
                return True
        except OSError:
            return False

    async def freeze(self) -> None:
        """Freeze and wait until it is. StateError when it is gone; thawed again on cancellation."""
        try:
            await self._turn("FROZEN" if self._one else "1", frozen=True)
        except BaseException:
            self._write("THAWED" if self._one else "0")
            raise

    async def thaw(self) -> None:
        """Let it go on."""
        await self._turn("THAWED" if self._one else "0", frozen=False)

    async def _turn(self, word: str, *, frozen: bool) -> None:
        if not self._write(word):
            raise StateError("pause: the sandbox has ended", op="pause")
        pause = _FIRST_PAUSE
        deadline = asyncio.get_running_loop().time() + _SECONDS
        while self.frozen() is not frozen:
            if asyncio.get_running_loop().time() > deadline:
                raise DeadlineExceededError(
                    f"pause: a process did not freeze within {_SECONDS:g} s", op="pause"
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _write(self, word: str) -> bool:
        try:
            self._switch.write_text(word)
        except OSError:
            return False
        return True


def freezer_of(pid: int) -> Freezer | None:
    """The freezer of a container's first process, None without the right to use it."""
    try:
        found = places_of(pid)
    except ProcessLookupError:
        return None
    place = found.get("freezer") or found.get("unified")
    if place is None or place.path == "/":
        return None
    freezer = Freezer(place)
    return freezer if freezer.usable() else None
