"""What a killed client leaves besides its sandboxes goes as soon as somebody looks."""

import asyncio
import subprocess
import sys
from pathlib import Path

from ringfence.backends.base import Backend
from ringfence.backends.mock import MockBackend
from ringfence.backends.owned import own_directory
from ringfence.backends.owner import is_gone, mark
from ringfence.ledger import Ledger, Owner, reap
from ringfence.spec import SandboxSpec

DEAD = Owner(2**22 + 1, 1, Owner.me().boot)
KILLED = """
import os, signal, sys
from pathlib import Path
from ringfence.backends.owned import own_directory

directory = own_directory(Path(sys.argv[1]))
Path(directory.name, "ca.pem").write_text("a certificate")
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_with_one(state: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, state], check=False, timeout=60)


def kept_in(state: Path) -> list[str]:
    return [str(path) for path in state.glob("ca-*")]


class Sweeper(MockBackend):
    """A backend that is told to sweep."""

    swept = 0

    async def sweep(self) -> None:
        self.swept += 1


async def test_what_a_killed_client_left_goes_with_its_sandboxes(tmp_path: Path) -> None:
    """Those of clients that live stay, and the next client looks as well."""
    ledger, backend = Ledger(tmp_path / "ledger.sqlite"), Sweeper()

    def load(name: str, endpoint: str | None) -> Backend:
        return backend

    async def sandbox(name: str, owner: Owner) -> None:
        spec = SandboxSpec()
        instance = await backend.create(spec, name, await backend.facts(spec))
        ledger.add(instance.record, owner=owner)

    with own_directory(tmp_path) as kept:
        await sandbox("kept", Owner.me())
        for _ in range(2):
            await asyncio.to_thread(killed_with_one, tmp_path)
        assert len(kept_in(tmp_path)) == 2  # the second removed what the first left
        assert await reap(ledger, load=load, probe=False) == []
        assert backend.swept == 0
        await sandbox("orphan", DEAD)
        await reap(ledger, load=load, probe=False)
        assert backend.swept == 1
        assert kept_in(tmp_path) == [kept]
    assert not kept_in(tmp_path)


def test_whose_a_mark_is_shows_only_where_it_was_made() -> None:
    me = Owner.me()
    pid, start, namespace, boot = mark().split("-", 3)
    assert is_gone(mark(), here=False) is False
    assert is_gone(f"{2**22 + 1}-{start}-{namespace}-{boot}", here=False) is True
    assert is_gone(f"{pid}-{start}-1-{boot}", here=True) is None
    assert is_gone(f"{pid}-{start}-{namespace}-{me.boot[::-1]}", here=False) is None
    assert is_gone(f"{pid}-{start}-{namespace}-{me.boot[::-1]}", here=True) is True
    assert is_gone("abc", here=True) is None
