"""An agent's tools in a sandbox: a shell that stays where it was, files to edit, a patch out.

A model calls tools and reads text; every failure is text, too, so that it can go on from there.
`scripted` stands in for the model: a list of calls. Yours sends the answers to a language model.

    python examples/agent.py [--image IMAGE] [--backend NAME] DIRECTORY

The directory itself never changes; what the agent did comes out as a patch.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import ringfence
from ringfence import ExecResult, Reason, Repository, Sandbox, SandboxError, SandboxSpec

SHOWN = 16 * 1024
"""Bytes of one answer: the model's context is dear."""
_STAY = 'eval "$1"; code=$?; pwd >"$2"; exit $code'
_PLACE = "/tmp/.agent-cwd"


@dataclass(frozen=True)
class Call:
    """What the model wants: a tool's name and its arguments."""

    tool: str
    arguments: dict[str, str] = field(default_factory=dict)


class Tools:
    """The tools on one sandbox. Each answers with text for the model and raises nothing for it."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._cwd = sandbox.cwd
        self._tools: dict[str, Callable[..., Awaitable[str]]] = {
            "bash": self.bash,
            "view": self.view,
            "replace": self.replace,
        }

    async def call(self, call: Call) -> str:
        """One call's answer. Only the loss of the sandbox itself is raised."""
        tool = self._tools.get(call.tool)
        if tool is None:
            return f"there is no tool {call.tool!r}; there are {', '.join(self._tools)}"
        try:
            return await tool(**call.arguments)
        except ringfence.SandboxLostError:
            raise
        except (SandboxError, TypeError) as error:
            return f"failed: {error}"

    async def bash(self, command: str, timeout: str = "2m") -> str:
        """Run a command where the one before ended; all it started is gone at its timeout."""
        result = await self._sandbox.exec(
            ["sh", "-c", _STAY, "sh", command, _PLACE],
            cwd=self._cwd,
            timeout=timeout,
            output=SHOWN,
            merge_stderr=True,
        )
        if result.reason is Reason.EXITED:
            self._cwd = (await self._sandbox.files.read_text(_PLACE)).rstrip("\n")
        return _told(result)

    async def view(self, path: str) -> str:
        """A file with the numbers of its lines."""
        text = await self._sandbox.files.read_text(self._at(path), errors="replace")
        lines = enumerate(text.splitlines(), start=1)
        return "\n".join(f"{number:6}  {line}" for number, line in lines)[:SHOWN]

    async def replace(self, path: str, old: str, new: str) -> str:
        """Replace a text that stands there exactly once."""
        text = await self._sandbox.files.read_text(self._at(path))
        if (found := text.count(old)) != 1:
            return f"failed: the text stands there {found} times"
        await self._sandbox.files.write(self._at(path), text.replace(old, new), atomic=True)
        return "done"

    def _at(self, path: str) -> str:
        return path if path.startswith("/") else f"{self._cwd}/{path}"


def _told(result: ExecResult) -> str:
    text = result.stdout.decode(errors="replace")
    if result.stdout_truncated:
        text += f"\n[{result.stdout_total - len(result.stdout)} bytes more were left out]"
    why = "" if result.reason is Reason.EXITED else f"{result.reason}: "
    return f"{text}\n[{why}{result.describe()}]".lstrip("\n")


async def work(tools: Tools, model: AsyncIterator[Call]) -> None:
    """Let the model call tools until it has no more calls."""
    async for call in model:
        print(f">>> {call.tool} {' '.join(call.arguments.values())}")
        print(await tools.call(call))


async def scripted() -> AsyncIterator[Call]:
    """In place of a model: looks around, makes a mistake, edits, and checks."""
    for call in (
        Call("bash", {"command": "pwd; ls; mkdir -p notes; cd notes"}),
        Call("bash", {"command": "printf 'one\\ntwo\\n' > list.txt; pwd"}),
        Call("view", {"path": "liszt.txt"}),
        Call("view", {"path": "list.txt"}),
        Call("replace", {"path": "list.txt", "old": "two", "new": "2"}),
        Call("bash", {"command": "sleep 60 & sleep 60", "timeout": "1s"}),
        Call("bash", {"command": "cat list.txt; ps -e 2>/dev/null | grep -c sleep; false"}),
    ):
        yield call


async def run(spec: SandboxSpec) -> bytes:
    """Work in a sandbox; the patch of what was done."""
    async with ringfence.open(spec) as sandbox:
        await work(Tools(sandbox), scripted())
        found = await sandbox.workspace.diff()
        print(found.stat)
        return found.data


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--image")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("directory")
    options = parser.parse_args()
    repository = Repository(path=options.directory)
    spec = SandboxSpec(image=options.image, backend=options.backend, repository=repository)
    try:
        print(asyncio.run(run(spec)).decode(errors="replace"))
    except SandboxError as error:
        raise SystemExit(f"agent: {error}") from None


if __name__ == "__main__":
    main()
