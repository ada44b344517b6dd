"""The patch: what changed, as git would say it.

Git writes it in a bare repository that lives for one patch and holds nothing but the bytes of the
changed files, which we gave it. It never sees the sandbox's tree, repository or attributes.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ringfence.errors import StateError
from ringfence.workspace.beneath import chunks
from ringfence.workspace.changes import Changes, Side
from ringfence.workspace.entries import LINK
from ringfence.workspace.failures import failed, shown
from ringfence.workspace.isolated import git
from ringfence.workspace.layers import Layers

_EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


@dataclass(frozen=True, slots=True)
class Patch:
    """data: for `git apply`, empty when nothing changed. stat: a summary like git diff --stat."""

    data: bytes
    stat: str


def write_patch(changes: Changes, base: Layers, now: Layers, *, scratch: Path) -> Patch:
    """Write the patch that turns `base` into `now`, binary files and renames included.

    scratch: a directory of ours for temporary files. StateError when a file is not what `changes`
    saw any more. It blocks.
    """
    if not changes.items:
        return Patch(b"", "")
    with tempfile.TemporaryDirectory(dir=scratch, prefix="patch-") as name:
        directory = Path(name)
        git(["init", "--quiet", "--bare", "--template=", "--initial-branch=none", "."],
            directory=directory)  # fmt: skip
        stream = directory / "stream"
        with stream.open("wb") as file:
            for piece in _stream(changes, base, now):
                file.write(piece)
        with stream.open("rb") as file:
            git(["fast-import", "--quiet", "--done"], directory=directory, given=file)
        stream.unlink()
        common = ["-M", "-r", "--no-ext-diff", "--no-textconv"]
        diff = ["diff-tree", "-p", "--binary", "--full-index", *common, "refs/old", "refs/new"]
        env = {"GIT_ATTR_SOURCE": _EMPTY_TREE}
        data = git(diff, directory=directory, env=env)
        stat = git(["diff-tree", "--stat=100", "--summary", *common, "refs/old", "refs/new"],
                   directory=directory, env=env)  # fmt: skip
    return Patch(data, stat.decode("utf-8", "replace"))


def _stream(changes: Changes, base: Layers, now: Layers) -> Iterator[bytes]:
    yield b"feature done\n"
    for ref, layers in (("refs/old", base), ("refs/new", now)):
        yield f"commit {ref}\ncommitter Ringfence <> 0 +0000\ndata 0\n".encode()
        for change in changes:
            if ref == "refs/old":
                yield from _file(layers, change.old_path or change.path, change.old)
            else:
                yield from _file(layers, change.path, change.new)
        yield b"\n"
    yield b"done\n"


def _file(layers: Layers, path: str, side: Side | None) -> Iterator[bytes]:
    if side is None:
        return
    found = layers.find(path)
    if found is None:
        raise _moved(path)
    yield b"M %s inline %s\ndata %d\n" % (side.git_mode.encode(), quoted(path), side.size)
    try:
        if side.kind == LINK:
            target = os.fsencode(layers.target(path, found))
            if len(target) != side.size:
                raise _moved(path)
            yield target
        else:
            yield from _exactly(layers.open(path, found), side.size, path)
    except OSError as error:
        raise failed(error, path, "reading a changed file") from None
    yield b"\n"


def _exactly(descriptor: int, size: int, path: str) -> Iterator[bytes]:
    left = size
    try:
        for piece in chunks(descriptor):
            left -= len(piece)
            if left < 0:
                break
            yield piece
    finally:
        os.close(descriptor)
    if left != 0:
        raise _moved(path)


def _moved(path: str) -> StateError:
    return StateError(
        f"{shown(path)} changed while the patch was written: pause the sandbox first",
        op="workspace",
        context={"path": shown(path)},
    )


def quoted(path: str) -> bytes:
    """The path in quotes, as git quotes it."""
    out = bytearray(b'"')
    for byte in os.fsencode(path):
        if byte in b'"\\':
            out += b"\\" + bytes([byte])
        elif byte < 32 or byte > 126:
            out += b"\\%03o" % byte
        else:
            out.append(byte)
    return bytes(out + b'"')
