"""Checks of files inside."""

import errno
import os
import pickle
from typing import Any

import pytest

import ringfence
from ringfence.backends.base import Features
from ringfence.testing.content import ContentChecks
from ringfence.testing.entries import EntryChecks


class FileChecks(ContentChecks, EntryChecks):
    """All of files: what is in them, what directories hold, permissions, names and errors."""

    @pytest.mark.parametrize(
        ("verb", "wrong"),
        [
            ("read", {"offset": -1}),
            ("read", {"offset": 2**64}),
            ("read", {"length": -1}),
            ("read", {"length": "5"}),
            ("read", {"max_bytes": -1}),
            ("list", {"limit": 0}),
            ("list", {"limit": 2**40}),
            ("list", {"cursor": "text"}),
            ("list", {"cursor": b"of elsewhere"}),
            ("write", {"data": 5}),
            ("write", {"data": b"", "mode": "644"}),
            ("write", {"data": b"", "mode": None}),
            ("write_at", {"offset": -1, "data": b""}),
            ("write_at", {"offset": 2**64, "data": b""}),
            ("glob", {"limit": -1}),
        ],
        ids=str,
    )
    async def test_wrong_arguments(
        self, sandbox: ringfence.Sandbox, place: str, verb: str, wrong: dict[str, object]
    ) -> None:
        """What no file can have is InvalidSpecError, and nothing is done."""
        path = place if verb == "list" else f"{place}/f"
        await sandbox.files.write(f"{place}/f", b"kept")
        with pytest.raises(ringfence.InvalidSpecError):
            await getattr(sandbox.files, verb)(path, **wrong)
        assert await sandbox.files.read(f"{place}/f") == b"kept"

    @pytest.mark.parametrize("path", [5, None, "relative", "", "/nul\0", "/\ud800"], ids=repr)
    async def test_what_is_no_path(self, sandbox: ringfence.Sandbox, path: Any) -> None:
        """Other types, and texts that no path can be, are InvalidSpecError for every verb."""
        files = sandbox.files
        for asked in (files.read, files.stat, files.exists, files.list, files.remove, files.glob):
            with pytest.raises(ringfence.InvalidSpecError):
                await asked(path)
        with pytest.raises(ringfence.InvalidSpecError):
            await files.write(path, b"")

    async def test_errors_are_pythons_own_besides(
        self, sandbox: ringfence.Sandbox, place: str
    ) -> None:
        """With errno, strerror and filename, after pickling too: `except OSError` works."""
        with pytest.raises(FileNotFoundError) as caught:
            await sandbox.files.read(f"{place}/absent")
        for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
            assert (error.errno, error.filename) == (errno.ENOENT, f"{place}/absent")
            assert error.strerror == os.strerror(errno.ENOENT)
            assert isinstance(error, ringfence.PathNotFoundError)

    async def test_an_error_of_two_paths_names_both(
        self, sandbox: ringfence.Sandbox, place: str
    ) -> None:
        """A file moved or copied over a directory: the message says which two."""
        await sandbox.files.write(f"{place}/f", b"")
        await sandbox.files.mkdir(f"{place}/d")
        for verb in (sandbox.files.rename, sandbox.files.copy):
            with pytest.raises(ringfence.PathIsADirectoryError) as caught:
                await verb(f"{place}/f", f"{place}/d")
            assert f"'{place}/f' to '{place}/d'" in str(caught.value)
            assert caught.value.path == f"{place}/f"

    async def test_a_missing_file(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """It is PathNotFoundError, Python's FileNotFoundError too, with path and sandbox."""
        with pytest.raises(FileNotFoundError) as caught:
            await sandbox.files.read(f"{place}/missing")
        error = caught.value
        assert isinstance(error, ringfence.PathNotFoundError)
        assert error.path == f"{place}/missing"
        assert error.sandbox_id == sandbox.id

    async def test_a_directory_is_no_file(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """Reading and writing one is PathIsADirectoryError."""
        with pytest.raises(ringfence.PathIsADirectoryError):
            await sandbox.files.read(place)
        with pytest.raises(ringfence.PathIsADirectoryError):
            await sandbox.files.write(place, b"x")

    async def test_a_file_is_no_directory(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """Listing one, or going through it, is PathNotADirectoryError."""
        await sandbox.files.write(f"{place}/f", b"")
        with pytest.raises(ringfence.PathNotADirectoryError):
            await sandbox.files.list(f"{place}/f")
        with pytest.raises(ringfence.PathNotADirectoryError):
            await sandbox.files.read(f"{place}/f/below")

    async def test_permissions_are_the_users(self, sandbox: ringfence.Sandbox) -> None:
        """Where the user may not write, PathDeniedError, Python's PermissionError too."""
        for path in ("/etc/ringfence-check", "/ringfence-check"):
            with pytest.raises(PermissionError) as caught:
                await sandbox.files.write(path, b"x")
            assert isinstance(caught.value, ringfence.PathDeniedError)

    async def test_another_user_has_other_permissions(
        self, sandbox: ringfence.Sandbox, place: str, features: Features
    ) -> None:
        """user= acts as that user: a private file is denied to it, its own are its own."""
        if not features.users:
            with pytest.raises(ringfence.UnsupportedError):
                await sandbox.files.read(place, user=12345)
            return
        await sandbox.files.write(f"{place}/private", b"x", mode=0o600)
        with pytest.raises(ringfence.PathDeniedError):
            await sandbox.files.read(f"{place}/private", user=12345)
        await sandbox.files.chmod(place, 0o777)
        await sandbox.files.write(f"{place}/theirs", b"x", user=12345)
        assert (await sandbox.files.stat(f"{place}/theirs")).uid == 12345

    async def test_files_belong_to_the_commands_user(
        self, sandbox: ringfence.Sandbox, place: str
    ) -> None:
        """What is written here is the user's, and commands see it; and the other way round."""
        await sandbox.files.write(f"{place}/f", b"from here")
        uid = int((await sandbox.exec(["id", "-u"])).stdout)
        assert (await sandbox.files.stat(f"{place}/f")).uid == uid
        assert (await sandbox.exec(["cat", f"{place}/f"])).stdout == b"from here"
        await sandbox.exec(shell=f"echo from there > {place}/g")
        assert await sandbox.files.read(f"{place}/g") == b"from there\n"

    @pytest.mark.parametrize("path", ["relative", "", "./x", "/tmp/\0"])
    async def test_paths_that_cannot_be_are_refused(
        self, sandbox: ringfence.Sandbox, path: str
    ) -> None:
        """Not absolute, or with a NUL: InvalidSpecError."""
        with pytest.raises(ringfence.InvalidSpecError):
            await sandbox.files.read(path)

    async def test_names_may_be_any_bytes(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """Newlines, quotes, other scripts and bytes that are no UTF-8 are listed as they are."""
        names = [b"new\nline", b"sp ace", b"'\"$`", "ü☃".encode(), b"\xff\xfe", b"-rf", b"*"]
        for name in names:
            await sandbox.files.write(place.encode() + b"/" + name, name)
        listing = await sandbox.files.list(place)
        assert sorted(os.fsencode(entry.name) for entry in listing.entries) == sorted(names)
        for entry in listing.entries:
            assert await sandbox.files.read(entry.path) == os.fsencode(entry.name)

    async def test_a_name_that_is_too_long(self, sandbox: ringfence.Sandbox, place: str) -> None:
        """256 bytes are FileError."""
        with pytest.raises(ringfence.FileError):
            await sandbox.files.write(f"{place}/{'x' * 256}", b"")
