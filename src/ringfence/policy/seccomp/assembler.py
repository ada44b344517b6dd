"""An assembler for classic BPF, with labels.

Programs are short, since the kernel translates one for each process that installs it: an answer
stands at the end, once for all that give it, and only what is too far for a condition takes a hop.
"""

import struct
from dataclasses import dataclass, field

from ringfence.errors import InvalidSpecError

JUMP, RETURN = 0x05, 0x06
_MOST_INSTRUCTIONS = 4096
_FARTHEST = 255
"""How many instructions a condition can skip."""


@dataclass(slots=True)
class Program:
    """Instructions whose jumps name labels until `assemble` knows the distances."""

    code: list[tuple[int, str | None, str | None, int | str]] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)
    labels: int = 0
    answers: dict[int, str] = field(default_factory=dict)

    def label(self) -> str:
        """A new name for a place."""
        self.labels += 1
        return f"L{self.labels}"

    def place(self, label: str) -> None:
        """The next instruction is what `label` names."""
        self.places[label] = len(self.code)

    def emit(
        self, code: int, value: int | str = 0, true: str | None = None, false: str | None = None
    ) -> None:
        """Add an instruction; true, false: where a condition goes on. value: of a jump a label."""
        self.code.append((code, true, false, value))

    def answer(self, value: int) -> str:
        """Where the program answers `value`."""
        return self.answers.setdefault(value, f"A{value}")

    def assemble(self) -> bytes:
        """An array of `struct sock_filter`. InvalidSpecError when the kernel takes none so long."""
        for value, label in self.answers.items():
            self.place(label)
            self.emit(RETURN, value)
        hops: set[tuple[int, str]] = set()
        while far := self._far(hops, self._layout(hops)):
            hops |= far
        starts = self._layout(hops)
        if starts[-1] > _MOST_INSTRUCTIONS:
            raise InvalidSpecError(
                f"seccomp: {starts[-1]} instructions, the kernel takes {_MOST_INSTRUCTIONS}:"
                " use fewer conditions",
                op="seccomp",
            )
        return b"".join(self._instruction(at, hops, starts) for at in range(len(self.code)))

    def _layout(self, hops: set[tuple[int, str]]) -> list[int]:
        """Where each instruction begins, and the end. hops: the jumps to a label that is too far
        for a condition, each an instruction more behind its own."""
        starts = [0]
        for at, (_, true, false, _) in enumerate(self.code):
            starts.append(starts[-1] + 1 + sum((at, label) in hops for label in {true, false}))
        return starts

    def _far(self, hops: set[tuple[int, str]], starts: list[int]) -> set[tuple[int, str]]:
        return {
            (at, label)
            for at, (_, true, false, _) in enumerate(self.code)
            for label in (true, false)
            if label is not None
            and (at, label) not in hops
            and starts[self.places[label]] - starts[at] - 1 > _FARTHEST
        }

    def _instruction(self, at: int, hops: set[tuple[int, str]], starts: list[int]) -> bytes:
        code, true, false, value = self.code[at]
        begin = starts[at]
        behind: list[str] = []
        distances = []
        for label in (true, false):
            if label is not None and (at, label) in hops:
                if label not in behind:
                    behind.append(label)
                distances.append(behind.index(label))
            else:
                distances.append(0 if label is None else starts[self.places[label]] - begin - 1)
        k = starts[self.places[value]] - begin - 1 if isinstance(value, str) else value
        parts = [struct.pack("<HBBI", code, *distances, k)]
        for number, label in enumerate(behind, begin + 1):
            distance = starts[self.places[label]] - number - 1
            parts.append(struct.pack("<HBBI", JUMP, 0, 0, distance))
        return b"".join(parts)
