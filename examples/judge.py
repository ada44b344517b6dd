"""Judge programs of strangers: each runs on every input under limits and gets one verdict.

A submission has a sandbox of its own; the answers never go in. Verdicts come from the typed reason
a command ended for and from what the kernel counted, not from what the program says.

    python examples/judge.py [--image IMAGE] [--backend NAME] [SUBMISSION.py ...]

Without submissions it judges eight of its own: one is right, seven are wrong in a way each.
The image, or this machine when there is none, needs python3.
"""

import argparse
import asyncio
from dataclasses import dataclass
from pathlib import Path

import ringfence
from ringfence import ExecResult, Limits, Reason, SandboxError, SandboxSpec, Ulimits

CASES = [("1 2\n", "3\n"), ("-5 5\n", "0\n"), ("1000000007 1\n", "1000000008\n")]
SECONDS, PATIENCE, OUTPUT = 2, 10, 64 * 1024
"""Seconds of processor time, seconds of the clock (a program may sleep, or the machine be busy) and
bytes."""
LIMITS = Limits(memory="128MiB", pids=32, cpus=1, tmp="16MiB")
READ = "a, b = map(int, input().split())\n"
OWN = {
    "right": READ + "print(a + b)",
    "wrong answer": READ + "print(abs(a) + abs(b))",
    "crash": READ + "print((a + b) // (a + b and 1))",
    "endless": "while True: pass",
    "asleep": "import time; time.sleep(1000)",
    "hungry": "held = [bytes([1]) * 2**20 for _ in range(4096)]",
    "loud": "while True: print('a' * 1000)",
    "fork bomb": "import os\nwhile True: os.fork()",
}


@dataclass(frozen=True)
class Judged:
    """verdict: of the first input that was not passed. seconds, bytes: the most of any input."""

    verdict: str
    passed: int
    seconds: float
    memory: int


def verdict(result: ExecResult, answer: str) -> str:
    """What one run was, by why it ended."""
    if result.reason in {Reason.TIMEOUT, Reason.CPU_TIME}:
        return "time limit exceeded"
    if result.reason is Reason.OOM_KILLED:
        return "memory limit exceeded"
    if result.reason is Reason.OUTPUT_LIMIT:
        return "output limit exceeded"
    if not result.ok:
        return f"runtime error ({result.describe()})"
    if result.usage.user_seconds + result.usage.system_seconds > SECONDS:
        return "time limit exceeded"
    right = result.stdout.decode(errors="replace").split() == answer.split()
    return "accepted" if right else "wrong answer"


async def judge(source: str, spec: SandboxSpec) -> Judged:
    """Run a submission on every input until one is not passed."""
    seconds, memory, passed = 0.0, 0, 0
    async with ringfence.open(spec) as sandbox:
        await sandbox.files.write("/tmp/main.py", source)
        for given, answer in CASES:
            result = await sandbox.exec(
                ["python3", "-I", "/tmp/main.py"],
                stdin=given.encode(),
                timeout=PATIENCE,
                grace=0,
                output=OUTPUT,
                on_output_limit="kill",
                ulimits=Ulimits(cpu=SECONDS + 1),  # a stop with room: the kernel keeps it by ticks
            )
            seconds = max(seconds, result.usage.user_seconds + result.usage.system_seconds)
            memory = max(memory, result.usage.max_rss)
            found = verdict(result, answer)
            if found != "accepted":
                return Judged(found, passed, seconds, memory)
            passed += 1
    return Judged("accepted", passed, seconds, memory)


async def judge_all(submissions: dict[str, str], spec: SandboxSpec) -> dict[str, Judged]:
    """All of them, four at a time. A failure of the judge itself is no verdict: it is raised."""
    room = asyncio.Semaphore(4)

    async def one(source: str) -> Judged:
        async with room:
            return await judge(source, spec)

    async with asyncio.TaskGroup() as group:
        tasks = {name: group.create_task(one(source)) for name, source in submissions.items()}
    return {name: task.result() for name, task in tasks.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--image")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("submissions", nargs="*", type=Path, metavar="SUBMISSION.py")
    options = parser.parse_args()
    submissions = {path.name: path.read_text() for path in options.submissions} or OWN
    try:
        spec = SandboxSpec(
            image=options.image, backend=options.backend, limits=LIMITS, profile="strict"
        )
        judged = asyncio.run(judge_all(submissions, spec))
    except* SandboxError as group:
        raise SystemExit(f"judge: {group.exceptions[0]}") from None
    for name, one in judged.items():
        used = f"{one.seconds:.2f} s  {one.memory / 2**20:.0f} MiB"
        print(f"{name:16} {one.passed}/{len(CASES)}  {used:>16}  {one.verdict}")


if __name__ == "__main__":
    main()
