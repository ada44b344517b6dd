"""Checks of what commands find around them."""

import os
from pathlib import PurePosixPath
from typing import Any

import pytest

import ringfence
from ringfence.backends.base import Features
from ringfence.testing.base import Checks


class SurroundingsChecks(Checks):
    """Variables, working directory and user, for one command and for all that come."""

    async def test_variables_can_be_set(self, sandbox: ringfence.Sandbox) -> None:
        """A value with "=", newline and quotes arrives unchanged."""
        value = "a=b\n'c' \"d\" $e"
        result = await sandbox.exec(["sh", "-c", 'echo "$V"'], env={"V": value})
        assert result.stdout == value.encode() + b"\n"

    async def test_variables_and_the_working_directory_may_be_any_bytes(
        self, sandbox: ringfence.Sandbox, place: str
    ) -> None:
        """What is not UTF-8 arrives unchanged, for one command and for all later ones."""
        odd, name = os.fsdecode(b"\xff\xe9"), f"{place}/\udcff"
        await sandbox.files.mkdir(name)
        asked = ["sh", "-c", 'echo "$V"; pwd']
        expected = b"\xff\xe9\n" + os.fsencode(name) + b"\n"
        assert (await sandbox.exec(asked, env={"V": odd}, cwd=name)).stdout == expected
        sandbox.env["V"] = odd
        await sandbox.chdir(name)
        assert (await sandbox.exec(asked)).stdout == expected

    async def test_variables_can_be_unset_for_one_command(self, sandbox: ringfence.Sandbox) -> None:
        """None as a value takes a variable away, for that command only."""
        sandbox.env["GONE"] = "1"
        result = await sandbox.exec(["env"], env={"GONE": None})
        assert b"GONE" not in result.stdout
        assert b"GONE=1" in (await sandbox.exec(["env"])).stdout

    async def test_the_environment_is_a_mapping(self, sandbox: ringfence.Sandbox) -> None:
        """sandbox.env is set, listed and deleted like a dict, for all later commands."""
        sandbox.env["COLOUR"] = "blue"
        assert "COLOUR" in sandbox.env
        assert (await sandbox.exec(shell="echo $COLOUR")).stdout == b"blue\n"
        del sandbox.env["COLOUR"]
        assert b"COLOUR" not in (await sandbox.exec(["env"])).stdout

    async def test_localhost_has_a_name(self, sandbox: ringfence.Sandbox) -> None:
        """Without a network, too: a task's own servers are reached by it."""
        told = await sandbox.exec(["cat", "/etc/hosts"])
        assert told.stdout.split()[:2] == [b"127.0.0.1", b"localhost"], told

    @pytest.mark.parametrize("name", ["", "1A", "A-B", "A=B", "A B", "ä"])
    async def test_names_that_are_none_are_refused(
        self, sandbox: ringfence.Sandbox, name: str
    ) -> None:
        """A variable's name is letters, digits and _ only, everywhere it can be given."""
        with pytest.raises(ringfence.InvalidSpecError):
            await sandbox.exec(["true"], env={name: "x"})
        with pytest.raises(ringfence.InvalidSpecError):
            sandbox.env[name] = "x"

    async def test_nothing_of_the_hosts_environment_is_inherited(
        self, sandbox: ringfence.Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Only PATH, HOME, LANG, TERM, the image's and the caller's variables are there."""
        monkeypatch.setenv("RINGFENCE_CHECK_SECRET", "secret")
        output = (await sandbox.exec(["env"])).stdout
        assert b"RINGFENCE_CHECK_SECRET" not in output
        for name in (b"PATH=", b"HOME=", b"LANG=", b"TERM="):
            assert name in output

    async def test_the_working_directory_is_given(
        self, sandbox: ringfence.Sandbox, place: str
    ) -> None:
        """cwd= holds for one command."""
        assert (await sandbox.exec(["pwd"], cwd=place)).stdout == place.encode() + b"\n"
        assert (await sandbox.exec(["pwd"])).stdout == sandbox.cwd.encode() + b"\n"

    async def test_the_working_directory_can_be_a_path_object(
        self, sandbox: ringfence.Sandbox, place: str
    ) -> None:
        """Of exec and of spawn, as a text would be."""
        path = PurePosixPath(place)
        assert (await sandbox.exec(["pwd"], cwd=path)).stdout == place.encode() + b"\n"
        async with sandbox.spawn(["pwd"], cwd=path) as process:
            assert (await process.wait()).stdout == place.encode() + b"\n"

    @pytest.mark.parametrize(
        ("field", "value"),
        [("env", ["A=1"]), ("env", []), ("env", "A=1"), ("cwd", b"/tmp"), ("cwd", 5),
         ("ulimits", [64]), ("ulimits", {"nofil": 64}), ("ulimits", {"nofile": "many"})],
        ids=str,
    )  # fmt: skip
    async def test_what_is_of_another_type_is_refused_by_name(
        self, sandbox: ringfence.Sandbox, field: str, value: Any
    ) -> None:
        """It is InvalidSpecError that names the field, of exec and of spawn."""
        asked: dict[str, Any] = {field: value}
        for begun in (sandbox.exec(["true"], **asked), sandbox.spawn(["true"], **asked)):
            with pytest.raises(ringfence.InvalidSpecError) as caught:
                await begun
            assert caught.value.context["fields"][0].split(".")[0] == field

    async def test_resource_limits_of_one_command(
        self, sandbox: ringfence.Sandbox, features: Features
    ) -> None:
        """ulimits= as a table or as Ulimits holds for that command alone; on a backend without
        them, UnsupportedError."""
        for asked in ({"nofile": 64}, ringfence.Ulimits(nofile=64)):
            if "ulimits" not in features.limits:
                with pytest.raises(ringfence.UnsupportedError) as caught:
                    await sandbox.exec(["true"], ulimits=asked)
                assert caught.value.context["fields"] == ["ulimits"]
                continue
            assert (await sandbox.exec(shell="ulimit -n", ulimits=asked)).stdout == b"64\n"
        assert (await sandbox.exec(["true"], ulimits={})).ok
        assert (await sandbox.exec(shell="ulimit -n")).stdout != b"64\n"

    async def test_chdir_holds_for_later_commands(
        self, sandbox: ringfence.Sandbox, place: str
    ) -> None:
        """The sandbox's working directory can be changed."""
        await sandbox.chdir(place)
        assert sandbox.cwd == place
        assert (await sandbox.exec(["pwd"])).stdout == place.encode() + b"\n"

    async def test_chdir_to_what_is_no_directory(
        self, sandbox: ringfence.Sandbox, place: str
    ) -> None:
        """A missing path, a file and a relative path are refused; the directory stays."""
        before = sandbox.cwd
        await sandbox.files.write(f"{place}/file", b"")
        with pytest.raises(ringfence.PathNotFoundError):
            await sandbox.chdir(f"{place}/missing")
        with pytest.raises(ringfence.PathNotADirectoryError):
            await sandbox.chdir(f"{place}/file")
        with pytest.raises(ringfence.InvalidSpecError):
            await sandbox.chdir("relative")
        assert sandbox.cwd == before

    async def test_a_missing_working_directory(self, sandbox: ringfence.Sandbox) -> None:
        """It is PathNotFoundError with the path, and nothing is started."""
        with pytest.raises(ringfence.PathNotFoundError) as caught:
            await sandbox.exec(["true"], cwd="/no/such/directory")
        assert caught.value.path == "/no/such/directory"

    async def test_a_file_as_working_directory(
        self, sandbox: ringfence.Sandbox, place: str
    ) -> None:
        """It is PathNotADirectoryError."""
        await sandbox.files.write(f"{place}/file", b"")
        with pytest.raises(ringfence.PathNotADirectoryError):
            await sandbox.exec(["true"], cwd=f"{place}/file")

    @pytest.mark.parametrize("cwd", ["relative", "/tmp/../etc", "/proc/self/fd/7", "/dev", "//x"])
    async def test_dangerous_working_directories_are_refused(
        self, sandbox: ringfence.Sandbox, cwd: str
    ) -> None:
        """Not absolute, not normalised, or the kernel's: InvalidSpecError."""
        with pytest.raises(ringfence.InvalidSpecError):
            await sandbox.exec(["true"], cwd=cwd)

    async def test_commands_are_not_root(self, sandbox: ringfence.Sandbox) -> None:
        """The default user has another uid than 0."""
        assert int((await sandbox.exec(["id", "-u"])).stdout) != 0

    async def test_the_user_can_be_a_number(
        self, sandbox: ringfence.Sandbox, features: Features
    ) -> None:
        """user=uid and "uid:gid" run as those; without users, UnsupportedError."""
        if not features.users:
            with pytest.raises(ringfence.UnsupportedError):
                await sandbox.exec(["true"], user=12345)
            return
        assert (await sandbox.exec(["id", "-u"], user=12345)).stdout == b"12345\n"
        assert (await sandbox.exec(["id", "-g"], user="12345:54321")).stdout == b"54321\n"

    async def test_a_number_that_nobody_has_is_its_own_group(
        self, sandbox: ringfence.Sandbox, features: Features
    ) -> None:
        """Not root's: what root's group may read is none of its business."""
        if features.users:
            assert (await sandbox.exec(["id", "-g"], user=12345)).stdout == b"12345\n"

    @pytest.mark.parametrize("user", ["root", 0, "0:1000"])
    async def test_nobody_becomes_root_later(
        self, sandbox: ringfence.Sandbox, features: Features, user: str | int
    ) -> None:
        """What the profile does not give at the opening it does not give a command or a file
        operation: PolicyDeniedError; without users, UnsupportedError."""
        expected = ringfence.PolicyDeniedError if features.users else ringfence.UnsupportedError
        with pytest.raises(expected):
            await sandbox.exec(["id"], user=user)
        with pytest.raises(expected):
            await sandbox.files.stat("/", user=user)

    async def test_an_unknown_user_is_not_found(
        self, sandbox: ringfence.Sandbox, features: Features
    ) -> None:
        """A name that the sandbox does not know is NotFoundError."""
        expected = ringfence.NotFoundError if features.users else ringfence.UnsupportedError
        with pytest.raises(expected):
            await sandbox.exec(["true"], user="nobody-of-this-name")

    @pytest.mark.parametrize("user", ["", "a b", "70000", "-1", "x:y:z", "../x"])
    async def test_what_is_no_user_is_refused(self, sandbox: ringfence.Sandbox, user: str) -> None:
        """It is InvalidSpecError."""
        with pytest.raises(ringfence.InvalidSpecError):
            await sandbox.exec(["true"], user=user)
