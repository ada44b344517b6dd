"""A guest in images that are not as others are."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringfence.guest import build
from ringfence.guest.protocol import Ask, string
from tests.conftest import missing, require_root

from .raw import Guest


@pytest.fixture
def start_after() -> Iterator[Callable[[str], Guest]]:
    """Starts guests after a line of shell in their namespaces of processes and mounts."""
    require_root()
    if not build.target().exists():
        missing("the guest is not built: python -m ringfence.guest.build")
    guests: list[Guest] = []

    def start(line: str) -> Guest:
        command = f'{line} && exec "$0" --stream'
        guests.append(Guest(Path("/bin/sh"), "-c", command, str(build.target())))
        guests[-1].raw.hello()
        return guests[-1]

    yield start
    for guest in guests:
        guest.close()


def test_a_user_whose_entry_is_longer_than_a_frame_is_not_known(
    start_after: Callable[[str], Guest], tmp_path: Path
) -> None:
    """The image wrote that file."""
    passwd = tmp_path / "passwd"
    passwd.write_text(f"long:x:7:7::/{'h' * 2_000_000}:/bin/sh\nuser:x:8:8::/home/user:/bin/sh\n")
    raw = start_after(f"mount --bind {passwd} /etc/passwd").raw
    with pytest.raises(FileNotFoundError):
        raw.ask(Ask.USER, string(b"long"))
    answer = raw.ask(Ask.USER, string(b"user"))
    assert struct.unpack_from("<II", answer) == (8, 8)
