"""A sandbox's /etc is what programs need, and nothing that is secret."""

import os
import time
from pathlib import Path

import pytest

from ringfence.backends.process import etc
from ringfence.backends.process.creation import user_of
from ringfence.backends.process.etc import User
from ringfence.errors import InvalidSpecError
from ringfence.spec import SandboxSpec

USER = User(1000, 1000)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    source = tmp_path / "host"
    (source / "ssl/certs").mkdir(parents=True)
    (source / "ssl/private").mkdir()
    (source / "ssl/certs/ca.pem").write_text("public")
    (source / "ssl/certs/ca.key").write_text("secret")
    (source / "ssl/certs/link.pem").symlink_to("/usr/share/ca.pem")
    (source / "ssl/private/host.pem").write_text("secret")
    (source / "protocols").write_text("tcp 6\n")
    (source / "magic").write_text("not for all")
    (source / "magic").chmod(0o600)
    for name in ("shadow", "passwd", "gitconfig", "hosts", "machine-id"):
        (source / name).write_text(f"the host's {name}: secret")
    return source


def test_public_files_are_copied_and_the_rest_is_made_up(host: Path, tmp_path: Path) -> None:
    made = etc.selection(tmp_path / "etc", USER, host)
    everything = {str(path.relative_to(made)) for path in made.rglob("*")}
    assert {"ssl/certs/ca.pem", "ssl/certs/link.pem", "protocols", "passwd", "hosts"} <= everything
    assert not everything & {"shadow", "gitconfig", "ssl/private", "ssl/certs/ca.key", "magic"}
    texts = [
        path.read_text() for path in made.rglob("*") if path.is_file() and not path.is_symlink()
    ]
    assert not [text for text in texts if "secret" in text]
    assert "user:x:1000:1000::/home/user:/bin/sh" in (made / "passwd").read_text()
    assert (made / "ssl/certs/link.pem").readlink() == Path("/usr/share/ca.pem")


def test_what_was_made_before_this_boot_is_made_again(
    host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It need not have reached the disk before the power went."""
    first = etc.selection(tmp_path / "etc", USER, host)
    monkeypatch.setattr(etc, "boot_id", lambda: "another")
    assert etc.selection(tmp_path / "etc", USER, host) != first


def test_the_same_host_and_user_share_one_and_a_change_makes_a_new_one(
    host: Path, tmp_path: Path
) -> None:
    root = tmp_path / "etc"
    first = etc.selection(root, USER, host)
    assert etc.selection(root, USER, host) == first
    assert etc.selection(root, User(1001, 1001), host) != first
    (host / "protocols").write_text("tcp 6\nudp 17\n")
    second = etc.selection(root, USER, host)
    assert second != first
    assert "udp" in (second / "protocols").read_text()
    assert "udp" not in (first / "protocols").read_text()


def test_what_nobody_used_for_long_is_removed(host: Path, tmp_path: Path) -> None:
    root = tmp_path / "etc"
    used, fresh, old = (etc.selection(root, User(uid, uid), host) for uid in (1, 2, 3))
    long_ago = time.time() - 100_000
    for path in (used, old):
        os.utime(path, (long_ago, long_ago))
    etc.prune(root, [used.name])
    assert (used.exists(), fresh.exists(), old.exists()) == (True, True, False)


@pytest.mark.parametrize(
    ("user", "uid", "gid"),
    [
        (None, 1000, 1000),
        ("1234", 1234, 1234),
        ("1234:5", 1234, 5),
        ("root", 0, 0),
        ("nobody:nogroup", 65534, 65534),
        ("user", 1000, 1000),
    ],
)
def test_users_without_an_image(user: str | None, uid: int, gid: int) -> None:
    found = user_of(SandboxSpec(user=user))
    assert (found.uid, found.gid) == (uid, gid)
    assert f":{uid}:{gid}:" in etc.made_up(found)["passwd"]


def test_a_name_that_is_not_there_is_refused_before_the_start() -> None:
    with pytest.raises(InvalidSpecError, match="postgres"):
        user_of(SandboxSpec(user="postgres"))
