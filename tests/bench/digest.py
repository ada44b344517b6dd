"""Digests: CPU time against hashlib in the same run, bytes counted, lines of the goals.

A rounds option of 1 uses a 64 MiB file in place of a 1 GiB one.
"""

import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ringfence.digest import Algorithm, Digest, Digester, digest_file, digest_mapped
from ringfence.digest import digester as digesters
from ringfence.digest.store import Store
from tests.bench.measure import Line, below

MIB = 1024 * 1024


async def measure(rounds: int) -> list[Line]:
    size = 64 * MIB if rounds == 1 else 1024 * MIB
    rounds = rounds or 5
    Algorithm.register("blake3")
    with tempfile.TemporaryDirectory(
        dir=os.environ.get("RINGFENCE_BENCH_DIR", "/var/tmp")
    ) as place:
        path = Path(place) / "content"
        block = os.urandom(MIB)
        with path.open("wb") as stream:
            for number in range(size // MIB):
                stream.write(number.to_bytes(8, "big") + block[8:])
        return [
            *_files(path, rounds, size),
            *_sinks(rounds),
            _states(),
            _resumed(Path(place), path, size),
            _parsing(),
            _importing(rounds),
        ]


def _cpu(things: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The least CPU seconds of this thread for each thing, all done once a round in turn."""
    times: dict[str, list[float]] = {name: [] for name in things}
    for _ in range(rounds):
        for name, thing in things.items():
            begin = time.thread_time()
            thing()
            times[name].append(time.thread_time() - begin)
    return {name: min(values) for name, values in times.items()}


def _speed(name: str, ours: float, theirs: float, peer: str, goal: float, size: int) -> Line:
    ratio = theirs / ours
    return Line(name, size / MIB / ours, "MiB/s", ratio, peer, f"at least {goal}x", ratio >= goal)


def _files(path: Path, rounds: int, size: int) -> list[Line]:
    def peer() -> None:
        with path.open("rb", buffering=0) as stream:
            hashlib.file_digest(stream, "sha256")

    times = _cpu(
        {
            "peer": peer,
            "read": lambda: digest_file(path),
            "mapped": lambda: digest_mapped(path),
            "blake3": lambda: digest_file(path, "blake3"),
        },
        rounds,
    )
    file_digest = "of hashlib.file_digest"
    return [
        _speed("sha256 of a file", times["read"], times["peer"], file_digest, 0.98, size),
        _speed("sha256 of a store's blob", times["mapped"], times["peer"], file_digest, 1.05, size),
        _speed("blake3 of a file", times["blake3"], times["read"], "of sha256", 2.3, size),
    ]


def _sinks(rounds: int) -> list[Line]:
    lines = []
    for size, total, goal in ((1024, 16, None), (64 * 1024, 256, 0.97), (MIB, 256, 0.98)):
        data = os.urandom(size)
        count = total * MIB // size

        def ours(data: bytes = data, count: int = count) -> None:
            write = Digester().write
            for _ in range(count):
                write(data)

        def theirs(data: bytes = data, count: int = count) -> None:
            update = hashlib.sha256().update
            for _ in range(count):
                update(data)

        times = _cpu({"ours": ours, "theirs": theirs}, max(rounds, 5))
        if goal is None:
            extra = (times["ours"] - times["theirs"]) / count * 1e6
            lines.append(below("resumable, 1 KiB writes: extra a call", extra, 2, "us"))
        else:
            name = f"resumable, {size // 1024} KiB writes"
            lines.append(
                _speed(name, times["ours"], times["theirs"], "of hashlib", goal, total * MIB)
            )
    return lines


def _states() -> Line:
    sink = Digester()
    sink.write(os.urandom(1000))

    def once() -> None:
        for _ in range(1000):
            Digester.resume("sha256", sink.state(), offset=1000)

    return below("state and resume", _cpu({"x": once}, 9)["x"] / 1000 * 1e6, 10, "us")


def _resumed(place: Path, path: Path, size: int) -> Line:
    """What share of a blob is hashed when 99% of it had come before a crash."""
    expected = digest_mapped(path)
    store = Store(place / "store")
    cut = size * 99 // 100
    with path.open("rb") as stream, store.ingest("blob", expected=expected, size=size) as ingest:
        while ingest.offset < cut:
            ingest.write(stream.read(min(256 * 1024, cut - ingest.offset)))
    hashed = 0
    write = digesters.Digester.write

    def counting(self: Digester, data: bytes) -> int:
        nonlocal hashed
        hashed += len(data)
        return write(self, data)

    digesters.Digester.write = counting  # type: ignore[method-assign,assignment]
    try:
        with (
            path.open("rb") as stream,
            store.ingest("blob", expected=expected, size=size) as ingest,
        ):
            stream.seek(ingest.offset)
            ingest.read_from(stream)
            ingest.commit()
    finally:
        digesters.Digester.write = write  # type: ignore[method-assign]
    return below("resumed at 99%: share of the bytes hashed", hashed / size * 100, 1.01, "%")


def _parsing() -> Line:
    texts = [f"sha256:{hashlib.sha256(bytes([n])).hexdigest()}" for n in range(200)]

    def once() -> None:
        parse = Digest.parse
        for text in texts:
            parse(text)

    rate = len(texts) / _cpu({"x": once}, 200)["x"]
    goal = 500_000
    return Line(
        "parsing and validating", rate, "1/s", None, "", f"at least {goal} 1/s", rate >= goal
    )


def _importing(rounds: int) -> Line:
    def cpu(code: str) -> float:
        script = f"import time; a = time.process_time(); {code}; print(time.process_time() - a)"
        runs = [
            float(
                subprocess.run(
                    [sys.executable, "-c", script], check=True, capture_output=True
                ).stdout
            )
            for _ in range(max(rounds, 7))
        ]
        return statistics.median(runs)

    return below("import ringfence.digest", cpu("import ringfence.digest") * 1e3, 20, "ms")
