"""The blocking interface is the asynchronous one, name by name."""

import asyncio
import contextlib
import inspect
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import ringfence
from ringfence import sync
from ringfence.backends.mock import MockBackend
from ringfence.events import EventStream
from ringfence.guest.reading import Reader
from ringfence.sandbox import pool
from ringfence.sandbox.files import Files
from ringfence.sandbox.process import Process
from ringfence.sandbox.sandbox import Sandbox
from ringfence.sandbox.stream import Stream

PAIRS = {
    Sandbox: sync.Sandbox,
    Files: sync.Files,
    Process: sync.Process,
    Stream: sync.Stream,
    Reader: sync.Reader,
    EventStream: sync.Events,
    pool.Pool: sync.Pool,
}
ROOT = Path(__file__).parents[3]


def public(cls: type) -> dict[str, object]:
    return {name: member for name, member in vars(cls).items() if not name.startswith("_")}


@pytest.mark.parametrize("cls", PAIRS)
def test_classes_have_the_same_members(cls: type) -> None:
    """Every public method is there with the same parameters and does not need an await."""
    for name, member in public(cls).items():
        twin = getattr(PAIRS[cls], "close" if name == "aclose" else name)
        if isinstance(member, property):
            assert isinstance(twin, property)
        elif callable(member):
            assert inspect.signature(twin) == inspect.signature(member), name
            assert not inspect.iscoroutinefunction(twin)
            assert twin.__doc__


def test_functions_have_the_same_parameters() -> None:
    """Every function that the package exports is there, blocking."""
    functions = [name for name in ringfence.__all__ if name.islower()]
    assert {"open", "run", "pool", "list_sandboxes"} <= set(functions)
    for name in functions:
        blocking, asynchronous = getattr(sync, name), getattr(ringfence, name)
        assert inspect.signature(blocking) == inspect.signature(asynchronous)
        assert not inspect.iscoroutinefunction(blocking)


def test_its_types_are_up_to_date() -> None:
    """sync.pyi is what scripts/sync_stub writes."""
    subprocess.run(
        [sys.executable, ROOT / "scripts" / "sync_stub", "--check"], check=True, timeout=120
    )


def test_a_plain_script(tmp_path: Path) -> None:
    """Commands, streams, files and errors without an event loop."""
    mock = MockBackend(files={"/workspace/a": "content"})
    with sync.open(backend=mock) as sandbox:
        assert sandbox.exec(["cat", "/workspace/a"]).stdout == b"content"
        assert [entry.name for entry in sandbox.files.walk("/workspace")] == ["a"]
        with sandbox.files.open("/workspace/a") as reader:
            assert b"".join(reader) == b"content"
        with sandbox.spawn(shell="echo 1; echo 2") as process:
            assert list(process.stdout.lines()) == [b"1\n", b"2\n"]
        with sandbox.spawn(["cat"], hold=True) as process:
            process.write("one\n")
        with sandbox.attach(process.id) as again:
            again.write("two\n")
            again.close_stdin()
            assert (again.wait().stdout, again.stdin_total) == (b"one\ntwo\n", 8)
        with sandbox.files.watch("/workspace") as events:
            sandbox.files.write("/workspace/b", b"")
            assert next(events).path == "/workspace/b"
        moved = sandbox.files.download("/workspace", tmp_path / "out")
        assert moved.members == 3
        with pytest.raises(ringfence.PathNotFoundError):
            sandbox.files.read("/missing")
        assert sandbox.info.id == sandbox.id
    with pytest.raises(ringfence.StateError):
        sandbox.exec(["true"])


def test_every_iterator_can_be_closed_early() -> None:
    """Once or twice, by hand or by its `with`; nothing of it is left under way."""
    mock = MockBackend(files={"/workspace/a": "1", "/workspace/b": "2"})
    with sync.open(backend=mock) as sandbox:
        walk = sandbox.files.walk("/workspace")
        next(walk)
        walk.close()
        walk.close()
        assert list(walk) == []
        with sandbox.files.walk("/workspace") as again:
            next(again)
        sandbox.stats().close()
        sandbox.events().close()
        with sandbox.spawn(shell="echo 1; echo 2; sleep 60") as process:
            lines = process.stdout.lines()
            assert next(lines) == b"1\n"
            lines.close()
            assert process.stdout.readline() == b"2\n"
            process.stdout.close()
        with sandbox.files.watch("/workspace") as events:
            events.close()
        assert sandbox.exec(["true"]).ok


def _in_the_child(sandbox: sync.Sandbox, process: sync.Process) -> None:
    signal.alarm(60)
    bad = 99
    try:
        done = 0
        for work in (lambda: sandbox.exec(["true"]), lambda: process.write("x"),
                     lambda: next(process.stdout), sandbox.delete):  # fmt: skip
            with contextlib.suppress(ringfence.StateError):
                work()
                done += 1
        sandbox.__exit__(None, None, None)
        with sync.open(backend=MockBackend()) as own:
            bad = done if own.exec(["true"]).ok else 98
    finally:
        os._exit(bad)


def test_a_forked_child_leaves_its_parents_sandbox_alone() -> None:
    """What it asks is StateError, leaving the block ends nothing, and it may open its own."""
    with sync.open(backend=MockBackend()) as sandbox, sandbox.spawn(["cat"]) as process:
        child = os.fork()
        if child == 0:
            _in_the_child(sandbox, process)
        assert os.waitpid(child, 0)[1] == 0
        process.write("still\n")
        assert process.stdout.readline() == b"still\n"
        assert sandbox.exec(["true"]).ok


async def test_a_sandbox_belongs_to_the_loop_that_opened_it() -> None:
    """Another one gets StateError at once, and nothing of it reaches the guest."""

    async def use(sandbox: ringfence.Sandbox) -> None:
        with pytest.raises(ringfence.StateError, match="event loop"):
            await sandbox.exec(["true"])
        with pytest.raises(ringfence.StateError, match="event loop"):
            await sandbox.files.read("/etc/passwd")

    async with ringfence.open(backend=MockBackend()) as sandbox:
        await asyncio.to_thread(lambda: asyncio.run(use(sandbox)))
        assert (await sandbox.exec(["true"])).ok


def test_iterators_serve_as_streams() -> None:
    """A generator feeds stdin and files."""

    def pieces() -> Iterator[bytes]:
        yield b"one "
        yield b"two"

    with sync.open(backend=MockBackend()) as sandbox:
        assert sandbox.exec(["cat"], stdin=pieces()).stdout == b"one two"
        sandbox.files.write("/tmp/f", pieces())
        assert sandbox.files.read("/tmp/f") == b"one two"


def test_many_threads_and_sandboxes() -> None:
    """Eight threads with a sandbox each, and all of them in one."""
    mock = MockBackend()
    problems: list[BaseException] = []

    def use(shared: sync.Sandbox, number: int) -> None:
        try:
            with sync.open(backend=mock) as own:
                for turn in range(10):
                    text = f"{number}-{turn}"
                    assert own.exec(["echo", text]).stdout.decode() == text + "\n"
                    assert shared.exec(["echo", text]).stdout.decode() == text + "\n"
        except BaseException as error:
            problems.append(error)

    with sync.open(backend=mock) as shared:
        threads = [threading.Thread(target=use, args=(shared, n)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert problems == []


def test_a_monitor() -> None:
    """It looks while the block lasts."""
    with sync.open(backend=MockBackend()) as sandbox, sandbox.monitor(0.01) as monitor:
        while monitor.looks < 2:
            threading.Event().wait(0.01)
        assert monitor.health is not None
        assert monitor.health.ok


def test_lists_of_sandboxes_are_blocking_too() -> None:
    """As `fork` gives them."""
    with sync.open(backend=MockBackend()) as sandbox:
        (wrapped,) = sync._wrap([sandbox._inner])
        assert wrapped.exec(["true"]).ok


def test_a_pool() -> None:
    """Members are acquired in a with."""
    with sync.pool(ringfence.SandboxSpec(), size=1, backend=MockBackend()) as members:
        with members.acquire() as sandbox:
            assert sandbox.exec(["true"]).ok
        assert members.statistics.hits + members.statistics.misses == 1


def test_its_own_callbacks_cannot_use_it() -> None:
    """It would wait for itself: StateError instead."""
    with sync.open(backend=MockBackend()) as sandbox, pytest.raises(ringfence.StateError):
        sandbox.exec(["echo", "x"], on_stdout=lambda _: sandbox.exec(["true"]))


def test_an_interrupt_ends_the_operation() -> None:
    """What interrupts the waiting is raised after the command is gone."""
    program = """
import signal, threading, os
from ringfence import sync
from ringfence.backends.mock import MockBackend
with sync.open(backend=MockBackend()) as sandbox:
    def soon():
        while not any(p.running for p in sandbox.processes()): pass
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=soon).start()
    try:
        sandbox.exec(["sleep", "300"])
    except KeyboardInterrupt:
        print("interrupted", sum(p.running for p in sandbox.processes()))
"""
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.stdout.strip() == "interrupted 0", answer.stderr
