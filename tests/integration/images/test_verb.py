"""`ringfence image` on a real Engine."""

import json
import subprocess
from pathlib import Path

import pytest

from ringfence.cli.app import run

from .conftest import push

pytestmark = pytest.mark.docker


def test_a_tag_is_imported_pulled_locked_and_found_changed(
    registry: str, name: str, rootfs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def output(*arguments: str, ends: int = 0) -> str:
        assert run(list(arguments)) == ends
        return capsys.readouterr().out.strip()

    lock = str(tmp_path / "lock")
    tag = f"{registry}/{name}:1"
    first = output("image", "import", str(rootfs), "--tag", f"{name}:one")
    assert first.startswith("sha256:")
    push(f"{name}:one", tag)
    pinned = output("image", "pull", tag)
    assert pinned.startswith(f"{tag}@sha256:")
    assert output("image", "lock", tag, "-f", lock) == f"{tag} {pinned.partition('@')[2]}"
    assert output("image", "lock", "--check", "-f", lock)
    assert json.loads(output("image", "inspect", "--json", tag))["id"] == first
    assert tag in output("image", "ls")

    output("image", "import", str(rootfs), "--tag", f"{name}:two", "--change", "ENV A=2")
    push(f"{name}:two", tag)
    output("image", "pull", tag)
    assert run(["image", "lock", "--check", "-f", lock]) == 125
    assert pinned.partition("@")[2] in capsys.readouterr().err
    assert output("image", "pull", "--locked", lock, tag) == pinned
    assert json.loads(output("image", "inspect", "--json", tag))["id"] == first
    assert run(["image", "pull", "--locked", lock, f"{registry}/{name}:not-locked"]) == 125
    assert "not in the lock file" in capsys.readouterr().err
    output("image", "rm", tag)
    assert run(["image", "inspect", tag]) == 125
    capsys.readouterr()
    missing = subprocess.run(["docker", "image", "inspect", tag], capture_output=True, check=False)
    assert missing.returncode != 0


def test_errors_say_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "junk").write_bytes(b"junk" * 1000)
    for arguments, words in (
        (["image", "pull", "Not A Name"], "is not an image's reference"),
        (["image", "inspect", "../../containers/json"], "is not an image's reference"),
        (["image", "rm", ""], "it is empty"),
        (["image", "import", str(tmp_path / "missing")], "missing is no tar archive: No such file"),
        (["image", "import", str(tmp_path / "junk")], "junk is no tar archive, and no directory\n"),
        (["image", "lock", "-f", str(tmp_path / "none")], "has no image: name those to lock"),
        (["image", "build", str(tmp_path)], "there is no Dockerfile"),
        (["image", "lock", "--check", "-f", str(tmp_path / "none")], "No such file"),
    ):
        assert run(arguments) == 125
        assert words in capsys.readouterr().err
