"""A guest that may not change users, under bubblewrap as an ordinary user."""

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ringfence.guest.protocol import Cred

from .raw import Ending, Guest, Raw

WHO = Cred(1000, 1000)
_SYSTEM = ("/usr", "/bin", "/lib", "/lib64")


class Wrapped(Guest):
    """A guest under bwrap, which uid 1000 runs. `binary`: copied to where that user reaches it.

    uid: that user's inside.
    """

    def __init__(
        self, binary: Path, env: Mapping[str, str] | None = None, uid: int = WHO.uid
    ) -> None:
        self._directory = Path("/tmp") / f"rf-{os.urandom(6).hex()}"
        self._directory.mkdir(mode=0o755)
        copied = Path(shutil.copy(binary, self._directory / "guest"))
        copied.chmod(0o755)
        ours, theirs = socket.socketpair()
        binds = [word for path in _SYSTEM for word in ("--ro-bind-try", path, path)]
        binds += ["--ro-bind", str(copied), "/guest", "--dev", "/dev", "--proc", "/proc"]
        kept = ["--cap-add", "CAP_SYS_ADMIN", "--as-pid-1"]
        ids = ["--uid", str(uid), "--gid", str(uid)]
        self.who = Cred(uid, uid)
        args = ["bwrap", "--unshare-all", *ids, *binds, "--tmpfs", "/tmp", *kept]
        self.process = subprocess.Popen(
            [*args, "/guest", "--stream", "--pidns"],
            stdin=theirs,
            stdout=theirs,
            env=env,
            user=1000,
            group=1000,
            extra_groups=[],
        )
        theirs.close()
        self.raw = Raw(ours)
        self.name = b"RINGFENCE_TEST_MARK=" + os.urandom(16).hex().encode()

    def run(self, *args: str, **options) -> Ending:
        """EXEC to EXIT, as the one user there is."""
        return self.raw.run(*args, who=self.who, **options)

    def sh(self, script: str, **options) -> str:
        """What a script prints."""
        return self.run("sh", "-c", script, **options).stdout.decode().strip()

    def namespace(self) -> str:
        """Of the next command's processes."""
        return self.sh("readlink /proc/self/ns/pid")

    def close(self) -> None:
        """End it."""
        super().close()
        shutil.rmtree(self._directory)
