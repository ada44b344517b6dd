"""The few commands that every mock sandbox has. docs/mock.md lists what they understand."""

import asyncio
import errno
import posixpath
import signal
from collections.abc import Mapping

from ringfence.backends.mock.node import failure
from ringfence.backends.mock.process import Process, Program


async def true(_: Process) -> int:
    """Exit code 0."""
    return 0


async def false(_: Process) -> int:
    """Exit code 1."""
    return 1


async def echo(process: Process) -> int:
    """The arguments with spaces between, and a newline unless the first is -n."""
    words = list(process.args[1:])
    newline = words[:1] != ["-n"]
    line = " ".join(words if newline else words[1:]) + ("\n" if newline else "")
    await process.stdout(line.encode("utf-8", "surrogateescape"))
    return 0


async def cat(process: Process) -> int:
    """Files, or stdin without any or for "-"."""
    for name in process.args[1:] or ("-",):
        if name != "-":
            await process.stdout(process.read_file(name))
            continue
        while chunk := await process.read():
            await process.stdout(chunk)
    return 0


async def sleep(process: Process) -> int:
    """Wait for as many seconds as the argument says, or "infinity"."""
    await asyncio.sleep(float(process.args[1]) if process.args[1:] != ("infinity",) else 1e9)
    return 0


async def env(process: Process) -> int:
    """All variables, one NAME=value a line."""
    lines = [f"{name}={value}\n" for name, value in process.env.items()]
    await process.stdout("".join(lines).encode("utf-8", "surrogateescape"))
    return 0


async def pwd(process: Process) -> int:
    """The working directory."""
    await process.stdout(process.cwd.encode("utf-8", "surrogateescape") + b"\n")
    return 0


async def identity(process: Process) -> int:
    """`id -u`, `id -g` or `id -G`: numbers."""
    who = process.who
    answers = {"-u": (who.uid,), "-g": (who.gid,), "-G": (who.gid, *who.groups)}
    numbers = answers.get(process.args[1] if len(process.args) > 1 else "")
    if numbers is None:
        await process.stderr(b"id: the mock knows -u, -g and -G\n")
        return 2
    await process.stdout(" ".join(map(str, numbers)).encode() + b"\n")
    return 0


async def kill(process: Process) -> int:
    """`kill -SIGNAL PID`, of the command's own process only."""
    name, pid = (*process.args[1:], "", "")[:2]
    if pid != str(process.pid):
        raise failure(errno.ESRCH)
    number = name.removeprefix("-").removeprefix("SIG")
    process.signal(int(number) if number.isdigit() else signal.Signals["SIG" + number])
    await asyncio.sleep(0)
    return 0


async def touch(process: Process) -> int:
    """Make empty files."""
    for name in process.args[1:]:
        process.write_file(name, b"", append=True)
    return 0


async def mkdir(process: Process) -> int:
    """Make directories; -p makes those above them too."""
    parents = process.args[1:2] == ("-p",)
    for name in process.args[2 if parents else 1 :]:
        process.tree.mkdir(process.place(name), process.who, parents=parents)
    return 0


async def rm(process: Process) -> int:
    """Remove files; -r, -rf remove trees, -f ignores what is not there."""
    flags = "".join(word[1:] for word in process.args[1:] if word.startswith("-"))
    for name in process.args[1:]:
        if name.startswith("-"):
            continue
        try:
            process.tree.remove(process.place(name), process.who, recursive="r" in flags)
        except FileNotFoundError:
            if "f" not in flags:
                raise
    return 0


async def ls(process: Process) -> int:
    """Names in one directory, sorted, one a line."""
    place = process.place(process.args[1] if len(process.args) > 1 else ".")
    names = sorted(process.tree.directory(posixpath.normpath(place), process.who).entries)
    await process.stdout(b"".join(name + b"\n" for name in names))
    return 0


BUILTINS: Mapping[str, Program] = {
    "true": true,
    "false": false,
    "echo": echo,
    "cat": cat,
    "sleep": sleep,
    "env": env,
    "pwd": pwd,
    "id": identity,
    "kill": kill,
    "touch": touch,
    "mkdir": mkdir,
    "rm": rm,
    "ls": ls,
}
