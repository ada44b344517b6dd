"""`sh -c` for the mock: lists of simple commands, nothing more.

Understood: words with '...' and "..." quotes and backslashes, $NAME, ${NAME}, $$ and $?, NAME=value
before a command or alone, `;`, newlines, `&&`, `||`, redirections `<`, `>`, `>>`, `2>`, `2>>`,
`>&2` and `2>&1`, and the commands `cd`, `export`, `exit`, `exec`, `trap '' SIGNAL` and `:`.
All else (pipes, `&`, $(...), `if`, loops, functions, globs) is refused with exit code 2.
"""

import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ringfence.backends.mock.process import Process, Program
from ringfence.backends.mock.script import settle

_TOKEN = re.compile(
    r"""(?P<space>[ \t]+) | (?P<next>\n|;) | (?P<and>&&) | (?P<or>\|\|)
      | (?P<redirect>2>&1|1?>&2|2>>|2>|>>|>|<)
      | (?P<word>(?:[^\s;&|<>()`'"\\$\#*?]|\\.|'[^']*'|"(?:[^"\\`$]|\\.|\$\w+|\$\{\w+\}|\$[$?])*"
          |\$\w+|\$\{\w+\}|\$[$?]|(?<=\S)[#])+)""",
    re.VERBOSE | re.DOTALL,
)
_PIECE = re.compile(r"""'[^']*'|"(?:[^"\\]|\\.)*"|\\.|\$\{?(?:\w+|[$?])\}?|[^'"\\$]+""", re.DOTALL)
_VARIABLE = re.compile(r"\\([$\"\\`])|\$\{?(\w+|[$?])\}?")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_RESERVED = {"if", "for", "while", "until", "case", "function", "{", "!"}

Find = Callable[[tuple[str, ...]], Program | None]


class NotUnderstood(Exception):
    """The script uses what this shell does not have."""


@dataclass(slots=True)
class _Simple:
    joint: str
    words: list[str] = field(default_factory=list)
    redirects: list[tuple[str, str]] = field(default_factory=list)


class _Exit(Exception):
    pass


class Shell:
    """One `sh -c` process: its variables, its last status, and its simple commands' streams."""

    def __init__(self, process: Process, find: Find) -> None:
        self._process = process
        self._find = find
        self._env = dict(process.env)
        self._status = 0

    async def run(self, script: str) -> int:
        """The exit code of the whole script."""
        try:
            commands = _parse(script)
        except NotUnderstood as error:
            await self._process.stderr(os.fsencode(f"sh: the mock does not understand {error}\n"))
            return 2
        for command in commands:
            if (command.joint == "&&" and self._status) or (
                command.joint == "||" and not self._status
            ):
                continue
            try:
                self._status = await self._simple(command)
            except _Exit:
                break
            except OSError as error:
                await self._process.stderr(f"sh: {error.strerror}\n".encode())
                self._status = 1
        return self._status

    async def _simple(self, command: _Simple) -> int:
        words = [self._expand(word) for word in command.words]
        env = dict(self._env)
        while command.words and (match := _ASSIGNMENT.fullmatch(words[0])):
            env[match[1]] = match[2]
            words.pop(0)
            command = _Simple(command.joint, command.words[1:], command.redirects)
        if not words:
            self._env = env
            return 0
        streams = _Streams(self._process, tuple(words), env)
        for operator, target in command.redirects:
            streams.redirect(operator, self._expand(target))
        return await self._call(streams, words)

    async def _call(self, streams: "_Streams", words: list[str]) -> int:
        name, rest = words[0], words[1:]
        if name == "exit":
            self._status = int(rest[0]) & 0xFF if rest else self._status
            raise _Exit
        if name == "exec":
            streams.args = tuple(rest)
            self._status = await self._call(streams, rest)
            raise _Exit
        special: dict[str, Callable[[list[str]], int]] = {
            "cd": self._cd,
            "export": self._export,
            "trap": self._trap,
            ":": _nothing,
        }
        if name in special:
            return special[name](rest)
        found = self._find(tuple(words))
        if found is None:
            await streams.stderr(os.fsencode(f"sh: {name}: not found in the mock\n"))
            return 127
        return await settle(found(streams))

    def _cd(self, words: list[str]) -> int:
        place = self._process.place(words[0] if words else self._env.get("HOME", "/"))
        self._process.tree.directory(place, self._process.who)
        self._process.cwd = place.decode("utf-8", "surrogateescape")
        return 0

    def _export(self, words: list[str]) -> int:
        self._env.update(word.split("=", 1) for word in words if "=" in word)  # type: ignore[misc]
        return 0

    def _trap(self, words: list[str]) -> int:
        for name in words[1:]:
            number = signal.Signals["SIG" + name.removeprefix("SIG")]
            (self._process.ignored.discard if words[0] else self._process.ignored.add)(number)
        return 0

    def _expand(self, word: str) -> str:
        return "".join(self._expand_piece(piece) for piece in _PIECE.findall(word))

    def _expand_piece(self, piece: str) -> str:
        if piece.startswith("'"):
            return piece[1:-1]
        if piece.startswith('"'):
            return _VARIABLE.sub(self._replacement, piece[1:-1])
        if piece.startswith("\\"):
            return piece[1:]
        return _VARIABLE.sub(self._replacement, piece)

    def _replacement(self, match: re.Match[str]) -> str:
        if match[1]:
            return match[1]
        if match[2] == "$":
            return str(self._process.pid)
        return str(self._status) if match[2] == "?" else self._env.get(match[2], "")


class _Streams(Process):
    """A simple command's view of its shell's process, with redirections of its own."""

    def __init__(self, process: Process, args: tuple[str, ...], env: dict[str, str]) -> None:
        self._process = process
        self.args = args
        self.env = env
        self.cwd = process.cwd
        self.who = process.who
        self.pid = process.pid
        self.tree = process.tree
        self.ignored = process.ignored
        self._targets = {1: process.stdout, 2: process.stderr}
        self._source: bytearray | None = None

    def redirect(self, operator: str, target: str) -> None:
        if operator == "<":
            self._source = bytearray(self.read_file(target))
        elif operator.endswith("&2"):
            self._targets[1] = self._targets[2]
        elif operator.endswith("&1"):
            self._targets[2] = self._targets[1]
        else:
            self.write_file(target, b"", append=operator.endswith(">>"))

            async def write(data: bytes) -> None:
                self.write_file(target, data, append=True)

            self._targets[2 if operator.startswith("2") else 1] = write

    async def read(self, size: int = 65536) -> bytes:
        if self._source is None:
            return await self._process.read(size)
        chunk = bytes(self._source[:size])
        del self._source[:size]
        return chunk

    async def stdout(self, data: bytes) -> None:
        await self._targets[1](data)

    async def stderr(self, data: bytes) -> None:
        await self._targets[2](data)

    def signal(self, number: int) -> None:
        self._process.signal(number)


def _nothing(_: list[str]) -> int:
    return 0


def _tokens(script: str) -> Iterator[tuple[str | None, str]]:
    at = 0
    while at < len(script):
        match = _TOKEN.match(script, at)
        if match is None:
            raise NotUnderstood(repr(script[at : at + 20]))
        at = match.end()
        if match.lastgroup != "space":
            yield match.lastgroup, match[0]


def _parse(script: str) -> list[_Simple]:
    commands = [_Simple(";")]
    redirect = ""
    for kind, token in _tokens(script):
        last = commands[-1]
        if redirect:
            if kind != "word":
                raise NotUnderstood(repr(token))
            last.redirects.append((redirect, token))
            redirect = ""
        elif kind == "redirect":
            if "&" in token:
                last.redirects.append((token, ""))
            else:
                redirect = token
        elif kind != "word":
            commands.append(_Simple(";" if kind == "next" else token))
        elif not last.words and token in _RESERVED:
            raise NotUnderstood(repr(token))
        else:
            last.words.append(token)
    if redirect:
        raise NotUnderstood("a redirection to nothing")
    return [command for command in commands if command.words or command.redirects]
