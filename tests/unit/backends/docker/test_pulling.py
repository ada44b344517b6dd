"""What a registry sends back never shows the login."""

import base64
import json

import pytest

from ringfence.backends.docker import pulling
from ringfence.backends.docker.engine import Engine
from ringfence.errors import BackendUnavailableError, ImageError, SandboxError
from ringfence.images import Reference
from ringfence.images.credentials import Credentials

LOGIN = Credentials("u", "hunter2")
SENT = base64.b64encode(b"u:hunter2").decode()


class Echo(Engine):
    """An Engine whose registry answers with what it was sent."""

    def __init__(self, error: SandboxError) -> None:
        self.error = error

    async def request(self, *_: object, **__: object) -> object:
        raise self.error


@pytest.mark.parametrize(
    ("kind", "status", "raised"),
    [
        (BackendUnavailableError, 401, ImageError),
        (BackendUnavailableError, 503, BackendUnavailableError),
        (ImageError, 500, ImageError),
    ],
)
async def test_an_error_that_echoes_the_login_is_raised_without_it(
    kind: type[SandboxError], status: int, raised: type[SandboxError]
) -> None:
    error = kind(f"registry: Basic {SENT}: hunter2", op="pull", context={"status": status})
    with pytest.raises(SandboxError) as caught:
        await pulling.resolve(Echo(error), Reference.parse_familiar("a.example/b:1"), LOGIN)
    assert type(caught.value) is raised
    text = json.dumps(caught.value.to_dict()) + str(caught.value)
    assert "hunter2" not in text
    assert SENT not in text
    assert ("asked as u" in text) is (raised is ImageError)
