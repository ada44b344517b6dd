"""The receipt of a sandbox: what of its confinement is in force, line by line."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from ringfence.errors import InvalidSpecError


@dataclass(frozen=True, slots=True)
class Control:
    """One line of a receipt: what was asked for, what the kernel says, and where it says so."""

    name: str
    requested: str
    enforced: str
    ok: bool
    evidence: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is really enforced, read back from the kernel and the runtime after the start."""

    controls: tuple[Control, ...]

    @property
    def gaps(self) -> tuple[Control, ...]:
        """Controls that were asked for and are not in force."""
        return tuple(control for control in self.controls if not control.ok)

    def __getitem__(self, name: str) -> Control:
        for control in self.controls:
            if control.name == name:
                return control
        raise KeyError(name)

    def __str__(self) -> str:
        rows = [("control", "requested", "enforced", "evidence")]
        rows += [(c.name, c.requested, c.enforced, c.evidence) for c in self.controls]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return "\n".join(
            f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]}"
            for row in rows
        )

    def to_dict(self) -> dict[str, Any]:
        """The receipt as JSON-able data."""
        return {"controls": [asdict(control) for control in self.controls]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The receipt that `to_dict` described. InvalidSpecError for what is none."""
        rows = data.get("controls") if isinstance(data, Mapping) else None
        if not isinstance(rows, list):
            raise _none("it has no list of controls")
        return cls(tuple(_control(number, row) for number, row in enumerate(rows)))


def _control(number: int, row: object) -> Control:
    wanted = {field.name: bool if field.name == "ok" else str for field in fields(Control)}
    if not isinstance(row, Mapping) or row.keys() != wanted.keys():
        raise _none(f"control {number} has not the fields {', '.join(wanted)}")
    for name, kind in wanted.items():
        if not isinstance(row[name], kind):
            raise _none(f"control {number}: {name} is no {kind.__name__}")
    return Control(**row)


def _none(why: str) -> InvalidSpecError:
    return InvalidSpecError(
        f"receipt: {why}; give what Receipt.to_dict() made",
        op="receipt",
        context={"fields": ["controls"]},
    )
