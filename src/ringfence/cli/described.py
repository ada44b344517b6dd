"""From the options that describe a sandbox, and a spec file, to its spec."""

import errno
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ringfence.cli.pairs import misuse, pair

if TYPE_CHECKING:
    from ringfence.spec import SandboxSpec

_REPOSITORY = {
    "repo": "path",
    "repo_mode": "mode",
    "ref": "ref",
    "include": "include",
    "exclude": "exclude",
    "history": "history",
}
_LIMIT_NAMES = ("memory", "swap", "cpus", "cpuset", "cpu_shares", "pids", "disk", "tmp", "shm",
                "read_rate", "write_rate", "network_rate", "cpu_time")  # fmt: skip
_PLAIN = ("image", "backend", "profile", "user", "cwd", "lifetime", "idle_timeout", "lock",
          "snapshot")  # fmt: skip
"""Options that are fields of a spec as they stand."""
_LARGEST_SPEC = 1 << 20
_PORT = re.compile(r"(?:([0-9]{1,5}):)?([0-9]{1,5})")


def make_spec(values: dict[str, Any]) -> "SandboxSpec":
    """The spec of a command line: the file's, with the options on top. InvalidSpecError."""
    from ringfence.spec import SandboxSpec

    data = read_spec(values.pop("spec")) if values.get("spec") else {}
    values.pop("spec", None)
    _merge(data, _as_spec(values))
    given = [name for name in _REPOSITORY if values.get(name) not in (None, [])]
    if given and "path" not in data["repository"]:
        raise misuse(f"--{given[0].replace('_', '-')}: say of what repository, with --repo")
    return SandboxSpec.parse(data)


def read_spec(path: Path) -> dict[str, Any]:
    """The data of a spec file; InvalidSpecError names the line that cannot be read."""
    import tomllib

    if str(path) == "-":
        raise misuse("--spec -: standard input is the command's; name a file")
    try:
        text = _read(path)
        data = _parsed(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise misuse(f"--spec {path}: {error.strerror}") from None
    except (ValueError, tomllib.TOMLDecodeError) as error:
        raise misuse(f"--spec {path} is not {path.suffix[1:] or 'TOML'}: {error}") from None
    except RecursionError:
        raise misuse(f"--spec {path}: it is nested too deep for a spec") from None
    if not isinstance(data, dict):
        raise misuse(f"--spec {path}: a spec is a table of fields, see `ringfence spec schema`")
    if isinstance(data.get("repository"), str):  # options may add fields to it
        data["repository"] = {"path": data["repository"]}
    return data


def _read(path: Path) -> str:
    """Its text. OSError, also where it is too large; ValueError."""
    with path.open("rb") as stream:
        data = stream.read(_LARGEST_SPEC + 1)
    if len(data) > _LARGEST_SPEC:
        raise OSError(errno.EFBIG, f"a spec has at most {_LARGEST_SPEC >> 20} MiB")
    return data.decode("utf-8")


def _parsed(text: str) -> Any:
    """JSON that says a thing once. ValueError."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{twice!r} is there twice")
        return table

    return json.loads(text, object_pairs_hook=once)


def _as_spec(values: dict[str, Any]) -> dict[str, Any]:
    """Options as they stand in a spec; those not given are left out."""
    given = {name: value for name, value in values.items() if value not in (None, [])}
    if "allow_degraded" in given:
        given["allow_degraded"] = [one.strip() for one in given["allow_degraded"].split(",")]
    spec: dict[str, Any] = {}
    for name in _PLAIN:
        _put(spec, given, name, name)
    for name in _LIMIT_NAMES:
        _put(spec, given, name, "limits", name)
    _put(spec, given, "run_size", "limits", "run")
    _put(spec, given, "output_limit", "limits", "output")
    _put(spec, given, "runtime", "security", "runtime")
    _put(spec, given, "allow_degraded", "security", "allow_degraded")
    _put(spec, given, "network", "network", "mode")
    _put(spec, given, "allow", "network", "allow")
    for option, field in _REPOSITORY.items():
        _put(spec, given, option, "repository", field)
    _put_pairs(spec, given)
    if "allow" in given:
        spec["network"].setdefault("mode", "proxy")
    return spec


def _put_pairs(spec: dict[str, Any], given: dict[str, Any]) -> None:
    """What is written as NAME=VALUE or with colons."""
    if "env" in given:
        spec["env"] = dict(pair(text, "--env", inherit=True) for text in given["env"])
    if "label" in given:
        spec["labels"] = dict(pair(text, "--label") for text in given["label"])
    if "mount" in given:
        spec["mounts"] = [_mount(text) for text in given["mount"]]
    if "publish" in given:
        spec.setdefault("network", {})["ports"] = [_port(text) for text in given["publish"]]
    if "ulimit" in given:
        spec.setdefault("limits", {})["ulimits"] = dict(_ulimit(text) for text in given["ulimit"])


def _put(spec: dict[str, Any], given: dict[str, Any], option: str, *path: str) -> None:
    if option in given:
        for name in path[:-1]:
            spec = spec.setdefault(name, {})
        spec[path[-1]] = given[option]


def _merge(data: dict[str, Any], on_top: dict[str, Any]) -> None:
    for name, value in on_top.items():
        if isinstance(value, dict) and isinstance(data.get(name), dict):
            _merge(data[name], value)
        else:
            data[name] = value


def _mount(text: str) -> dict[str, Any]:
    source, *further = text.split(":")
    if not source or len(further) not in (1, 2) or further[1:] not in ([], ["ro"], ["rw"]):
        raise misuse(f"--mount {text!r}: write SOURCE:DESTINATION or SOURCE:DESTINATION:rw")
    mount = {"source": str(Path(source).absolute()), "destination": further[0]}
    return mount if not further[1:] else {**mount, "read_only": further[1] == "ro"}


def _port(text: str) -> dict[str, int]:
    match = _PORT.fullmatch(text)
    if match is None:
        raise misuse(f"--publish {text!r}: write PORT or HOST_PORT:PORT")
    host, inside = match.groups()
    return {"inside": int(inside), "host": int(host or 0)}


def _ulimit(text: str) -> tuple[str, Any]:
    name, value = pair(text, "--ulimit")
    soft, _, hard = value.partition(":")
    try:
        numbers = [part if part == "unlimited" else int(part) for part in (soft, hard or soft)]
    except ValueError:
        raise misuse(f"--ulimit {text!r}: write NAME=SOFT or NAME=SOFT:HARD") from None
    return name, {"soft": numbers[0], "hard": numbers[1]}
