"""The environment of a sandbox's commands."""

from collections.abc import Iterator, Mapping, MutableMapping

from ringfence.errors import InvalidSpecError
from ringfence.guest.request import pack_env
from ringfence.spec.sandbox import check_env

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BASE: Mapping[str, str] = {"PATH": PATH, "LANG": "C.UTF-8", "TERM": "dumb"}
"""What every command has, besides HOME; nothing else comes from outside."""


class Environment(MutableMapping[str, str]):
    """The variables of every later command of one sandbox, as a mapping.

    Setting or deleting one changes the commands that start afterwards, not those that run.
    `exec(env=...)` goes on top of it. InvalidSpecError for a name or a value that cannot be one.
    HOME is the command's user's, unless it is set here. A value may hold any bytes but NUL, as text
    with surrogateescape; those of a spec are UTF-8.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = {**BASE, **variables}
        self._packed: dict[str, bytes] = {}

    def __getitem__(self, name: str) -> str:
        return self._variables[name]

    def __setitem__(self, name: str, value: str) -> None:
        self._variables = dict(checked({**self._variables, name: value}))
        self._packed = {}

    def __delitem__(self, name: str) -> None:
        del self._variables[name]
        self._packed = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def __repr__(self) -> str:
        return f"Environment({', '.join(sorted(self._variables))})"

    def packed(self, home: str, changes: Mapping[str, str | None] | None) -> bytes:
        """All variables of one command, as its request takes them; see `of`."""
        if changes:
            return pack_env(self.of(home, changes))
        packed = self._packed.get(home)
        if packed is None:
            packed = self._packed[home] = pack_env(self.of(home, None))
        return packed

    def of(self, home: str, changes: Mapping[str, str | None] | None) -> dict[str, str]:
        """All variables of one command. changes: name to value, or to None for "not set"."""
        merged = {"HOME": home or "/", **self._variables}
        for name, value in (changes or {}).items():
            if value is None:
                merged.pop(name, None)
            else:
                merged[name] = value
        return dict(checked(merged)) if changes else merged


def checked(variables: Mapping[str, str]) -> Mapping[str, str]:
    """`variables`, unless one cannot be a variable."""
    for name, value in variables.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise _wrong(f"{name!r} and its value must be texts")
    try:
        return check_env(variables, any_bytes=True)
    except ValueError as error:
        raise _wrong(str(error)) from None


def _wrong(message: str) -> InvalidSpecError:
    return InvalidSpecError(f"env: {message}", op="exec", context={"fields": ["env"]})
