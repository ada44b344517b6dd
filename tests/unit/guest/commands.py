"""Commands for the tests of sessions."""

from ringfence.guest.execs import Exec
from ringfence.guest.protocol import ExecFlag
from ringfence.guest.request import ExecRequest
from ringfence.guest.session import Session

PATH = {"PATH": "/usr/bin:/bin"}
OPEN = ExecFlag.SEARCH_PATH | ExecFlag.STDIN_OPEN


def command(*args: str, **options) -> ExecRequest:
    return ExecRequest(args, **{"uid": 1000, "gid": 1000, "env": PATH, **options})


async def spawn(session: Session, *args: str, flags: int = OPEN, **options) -> Exec:
    process = await session.spawn(command(*args, flags=flags, **options))
    assert isinstance(process, Exec)
    return process
