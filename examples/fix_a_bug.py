"""Fix a bug in a real library: the round trip of a repository.

The library's source distribution comes from the package index and is broken by a patch. In a
sandbox its tests fail, a fix is made, they pass; the change comes out as a patch, is looked at and
applied to the original, whose tests then pass as well.

    python examples/fix_a_bug.py [--image IMAGE] [--backend NAME]

The image needs python3 and pytest.
"""

import argparse
import asyncio
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import ringfence
from ringfence import Repository

LIBRARY = "packaging==24.1"
# Python 3.11.3 and older have no filters.
SAFELY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
ARCHIVE = Path(__file__).resolve().parent.parent / ".cache/demo/packaging-24.1.tar.gz"
BREAK = r"""--- a/src/packaging/utils.py
+++ b/src/packaging/utils.py
@@ -39,1 +39,1 @@
-_canonicalize_regex = re.compile(r"[-_.]+")
+_canonicalize_regex = re.compile(r"[-_]+")
"""
FIX = r"sed -i 's/\[-_\]+/[-_.]+/' src/packaging/utils.py"
PYTEST = ["python3", "-m", "pytest"]
TESTS = [*PYTEST, "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir=.",
         "tests/test_utils.py"]  # fmt: skip


def fetch(directory: Path) -> Path:
    """The library's unpacked source distribution; what was downloaded is kept for the next time."""
    if not ARCHIVE.exists():
        ARCHIVE.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=ARCHIVE.parent) as name:
            pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "download"]
            command = [*pip, "--no-deps", "--no-binary", ":all:", "-d", name, LIBRARY]
            subprocess.run(command, check=True)
            (Path(name) / ARCHIVE.name).replace(ARCHIVE)
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(directory, **SAFELY)
    return directory / LIBRARY.replace("==", "-")


def break_it(source: Path) -> None:
    """Apply the patch that makes tests fail."""
    command = ["git", "apply", "--unidiff-zero", "-"]
    subprocess.run(command, cwd=source, input=BREAK.encode(), check=True)


async def mend(source: Path, where: dict[str, str | None]) -> bytes:
    """Run the tests, fix, run them again, and apply the change to the original: the patch."""
    env = {"PYTHONPATH": "src", "PYTHONDONTWRITEBYTECODE": "1"}
    repository = Repository(path=str(source))
    async with ringfence.open(**where, repository=repository, env=env) as sandbox:
        if not (await sandbox.exec([*PYTEST, "--version"])).ok:
            raise SystemExit("no pytest here: name an --image that has python3 and pytest")
        broken = await sandbox.exec(TESTS, timeout=300)
        print(broken.stdout.decode(errors="replace").splitlines()[-1])
        assert broken.exit_code == 1, "the tests should fail"
        (await sandbox.exec(shell=FIX)).check()
        mended = await sandbox.exec(TESTS, timeout=300)
        print(mended.stdout.decode(errors="replace").splitlines()[-1])
        mended.check()
        found = await sandbox.workspace.diff()
        print(found.stat)
        await sandbox.workspace.apply()
    async with ringfence.open(
        **where, repository=Repository(path=str(source), mode="ro"), env=env
    ) as sandbox:
        (await sandbox.exec(TESTS, timeout=300)).check()
    return found.data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image")
    parser.add_argument("--backend")
    options = parser.parse_args()
    where = {name: value for name, value in vars(options).items() if value}
    with tempfile.TemporaryDirectory() as name:
        source = fetch(Path(name))
        text = (source / "src/packaging/utils.py").read_bytes()
        break_it(source)
        patch = asyncio.run(mend(source, where))
        print(patch.decode())
        assert (source / "src/packaging/utils.py").read_bytes() == text, "it is as it was"
    print("broken, mended in a sandbox, and applied")


if __name__ == "__main__":
    main()
