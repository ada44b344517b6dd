"""`ringfence stats` says whom it could not measure."""

from collections.abc import AsyncIterator, Sequence

import pytest

from ringfence.cli.app import run
from ringfence.sandbox import members
from ringfence.spec import Usage


@pytest.mark.parametrize(
    ("names", "code", "said"), [(["ab1"], 0, ""), ([], 0, ""), (["ab1", "cd2"], 1, "of cd2: ended")]
)
def test_one_sample_ends_with_1_when_somebody_named_is_not_in_it(
    names: list[str],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def usages(_names: Sequence[str]) -> AsyncIterator[tuple[str, Usage]]:
        yield "ab12", Usage(memory=1 << 20)

    monkeypatch.setattr(members, "usages", usages)
    assert run(["stats", *names, "--once"]) == code
    out, err = capfd.readouterr()
    assert "ab12" in out
    assert said in err
    assert bool(err) == bool(said)
