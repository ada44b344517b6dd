"""The images that scripts/images makes: what the tests run in. And such as a test makes itself."""

import io
import subprocess
import tarfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

DEBIAN = "ringfence-test/debian"
"""python3, pytest, git, gcc, make, curl; the user "user" is 1000."""

BUSYBOX = "ringfence-test/busybox"
"""No bash, no coreutils, no Python."""

SCRATCH = "ringfence-test/scratch"
"""Empty: only the guest can run there."""


@contextmanager
def imported(members: Mapping[str, str | bytes], *changes: str) -> Iterator[str]:
    """An image on this machine's daemon, by name, until the end. members: where each link leads, or
    what is in each file. changes: lines of a Dockerfile."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, what in members.items():
            member = tarfile.TarInfo(name)
            member.mode = 0o755
            if isinstance(what, str):
                member.type, member.linkname = tarfile.SYMTYPE, what
                archive.addfile(member)
            else:
                member.size = len(what)
                archive.addfile(member, io.BytesIO(what))
    name = f"ringfence-test/made-{uuid.uuid4().hex}"
    options = [word for line in changes for word in ("--change", line)]
    args = ["docker", "import", *options, "-", name]
    subprocess.run(args, input=packed.getvalue(), check=True, capture_output=True, timeout=60)
    try:
        yield name
    finally:
        subprocess.run(["docker", "rmi", "-f", name], check=True, capture_output=True, timeout=60)
