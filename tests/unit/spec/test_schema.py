"""The JSON Schema of a spec file takes what a spec file may say, short forms included."""

import json
from typing import Any

import pytest

from ringfence.spec import SandboxSpec
from tests.unit.spec.test_spec import GOOD

SCHEMA: dict[str, Any] = SandboxSpec.model_json_schema()
_TYPES = {"string": str, "boolean": bool, "array": list, "object": dict, "null": type(None)}

SHORT: list[dict[str, Any]] = [
    {"limits": {"memory": "1GiB", "output": 5, "timeout": "10m", "cpu_time": 1.5}},
    {"user": 1000, "lifetime": "1h", "idle_timeout": 60},
    {"user": "1000:1000", "security": {"tmpfs": {"/data": "1m"}}},
    {"repository": {"path": ".", "size": "1g", "owner": "5:5"}},
    {"repository": "."},
]


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a validator of JSON Schema would take it: the keywords that ours uses."""
    if "$ref" in schema:
        return fits(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return any(fits(value, one) for one in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return value in schema.get("enum", [schema.get("const")])
    kind = schema["type"]
    if kind in ("integer", "number"):
        good = int if kind == "integer" else int | float
        return isinstance(value, good) and not isinstance(value, bool)
    if not isinstance(value, _TYPES[kind]):
        return False
    if kind == "array":
        return all(fits(one, schema["items"]) for one in value)
    return kind != "object" or all(_member(schema, name, one) for name, one in value.items())


def _member(schema: dict[str, Any], name: str, value: Any) -> bool:
    known = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
    return known is True or (isinstance(known, dict) and fits(value, known))


@pytest.mark.parametrize("data", [*GOOD, *SHORT], ids=json.dumps)
def test_the_schema_takes_what_the_spec_takes(data: dict[str, Any]) -> None:
    SandboxSpec.parse(data)
    assert fits(data, SCHEMA)


@pytest.mark.parametrize(
    "data",
    [
        {"limits": {"memory": []}},
        {"limits": {"memry": 1}},
        {"limits": {"ulimits": {"nofile": "many"}}},
        {"network": {"allow": [5]}},
        {"profile": "strikt"},
    ],
    ids=json.dumps,
)
def test_the_schema_refuses_what_is_no_spec(data: dict[str, Any]) -> None:
    assert not fits(data, SCHEMA)
