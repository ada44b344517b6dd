"""Every error about a number above the ceiling says it in the same words, wherever it is raised."""

import re
from pathlib import Path

import pytest

import ringfence
from ringfence.backends.mock import MockBackend
from ringfence.errors import PolicyDeniedError
from ringfence.policy import Ceiling

SOURCE = Path(ringfence.__file__).parent


def test_the_sentence_stands_in_one_place() -> None:
    having = [path for path in SOURCE.rglob("*.py") if "is outside of {" in path.read_text()]
    assert [path.name for path in having] == ["bounds.py"]


async def test_an_opening_a_command_and_an_extension_say_the_same() -> None:
    ceiling = Ceiling(limits={"timeout": 60}, lifetime=60)
    said = []
    for number in (61, float("inf"), 61.5):
        async with ringfence.open(backend=MockBackend(), ceiling=ceiling) as sandbox:
            with pytest.raises(PolicyDeniedError) as command:
                await sandbox.exec(["true"], timeout=number)
            said.append(str(command.value))
    with pytest.raises(PolicyDeniedError) as opening:
        await ringfence.open(backend=MockBackend(), ceiling=ceiling, limits={"timeout": 61})
    async with ringfence.open(backend=MockBackend(), ceiling=ceiling) as sandbox:
        with pytest.raises(PolicyDeniedError) as extension:
            await sandbox.extend(61)
    said += [str(opening.value), str(extension.value)]
    form = re.compile(r"[a-z.]+: (61|inf|61\.5) is outside of 0 to 60, the range of the ceiling")
    assert all(form.match(text) for text in said), said
