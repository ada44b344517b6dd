"""What an opening asks of the Engine."""

import re

import pytest

import ringfence
from ringfence.backends.docker.engine import Engine
from tests import images
from tests.conftest import require_docker

pytestmark = pytest.mark.docker


async def test_an_opening_asks_the_engine_four_things(monkeypatch: pytest.MonkeyPatch) -> None:
    require_docker(images.BUSYBOX)
    asked = []
    exchange = Engine._exchange

    async def noted(self: Engine, method: str, url: str, *rest: object) -> tuple[int, bytes]:
        asked.append(f"{method} {re.sub(r'^/v[0-9.]+|[?].*|[0-9a-f]{64}', '', url)}")
        return await exchange(self, method, url, *rest)  # type: ignore[arg-type]

    async with ringfence.open(image=images.BUSYBOX):
        monkeypatch.setattr(Engine, "_exchange", noted)
        async with ringfence.open(image=images.BUSYBOX):
            assert asked == [
                f"GET /images/{images.BUSYBOX.replace('/', '%2F')}/json",
                "POST /containers/create",
                "POST /containers//start",
                "GET /containers//json",
            ]
