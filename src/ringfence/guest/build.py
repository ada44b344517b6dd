"""Compile the guest agent: `python -m ringfence.guest.build [--check] [--quiet] [--machine M]`.

It needs nothing but the standard library, so that the wheel's build hook can run it as a script.
The compiler is the first that works of musl-gcc, cc (both -static) and the `ziglang` package; for
another machine than this one it is ziglang.
"""

import contextlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "agent"
MODE = 0o711
"""Of the binary: it runs, and nobody but its owner reads it."""
_FLAGS = (
    "-std=gnu11",
    "-D_LARGEFILE64_SOURCE",
    "-Os",
    "-static",
    "-fno-asynchronous-unwind-tables",
    "-ffunction-sections",
)
_LINK = ("-Wl,--gc-sections", "-Wl,-z,noexecstack", "-s")
_STRICT = ("-Wall", "-Wextra", "-Werror")


class BuildError(Exception):
    """No compiler, or the sources do not compile."""


def target(machine: str = platform.machine()) -> Path:
    """Where the binary for `machine` goes, a name of uname(2); this one's unless given."""
    return HERE / "bin" / f"ringfence-guest-{machine}"


def keep_private(binary: Path) -> None:
    """Give it MODE where that is ours to do: installers make programs readable for all."""
    with contextlib.suppress(OSError):
        if stat.S_IMODE(binary.stat().st_mode) != MODE:
            binary.chmod(MODE)


def compilers(machine: str = platform.machine()) -> list[list[str]]:
    """The compilers that are here, best first, as the beginning of their command lines."""
    native = ("musl-gcc", "cc") if machine == platform.machine() else ()
    found = [[path] for name in native if (path := shutil.which(name))]
    if find_spec("ziglang") is not None:
        triple = f"{machine}-linux-musl"
        found.append([sys.executable, "-m", "ziglang", "cc", "-target", triple])
    return found


def sources() -> list[Path]:
    """The agent's C files."""
    return sorted(SOURCES.glob("*.c"))


def is_fresh(binary: Path) -> bool:
    """Whether the binary is there and newer than all it is made of."""
    parts = [*SOURCES.glob("*.[ch]"), Path(__file__)]
    return binary.exists() and all(part.stat().st_mtime <= binary.stat().st_mtime for part in parts)


def compile_with(
    compiler: Sequence[str],
    output: Path,
    extra: Sequence[str] = (),
    machine: str = platform.machine(),
) -> str:
    """Compile to `output`; what the compiler said when it failed, else ""."""
    build = f'-DBUILD="{machine}"'
    command = [*compiler, *_FLAGS, *extra, build, *map(str, sources()), "-o", str(output), *_LINK]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"{' '.join(compiler)}: {done.stderr.strip()}"


def build(extra: Sequence[str] = (), machine: str = platform.machine()) -> Path:
    """Compile for `machine` and return the binary's path. BuildError."""
    binary = target(machine)
    binary.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for compiler in compilers(machine):
        with tempfile.TemporaryDirectory(dir=binary.parent, prefix=".build-") as directory:
            output = Path(directory, binary.name)
            failure = compile_with(compiler, output, extra, machine)
            if not failure:
                output.chmod(MODE)
                output.replace(binary)
                return binary
            failures.append(failure)
    if machine != platform.machine():
        raise BuildError(
            f"the guest agent cannot be compiled for {machine} here: `pip install ziglang`\n"
            + "\n".join(failures)
        )
    raise BuildError(
        "the guest agent cannot be compiled: install musl-gcc (package musl-tools), a cc that can "
        "link static (gcc and libc6-dev), or `pip install ziglang`\n" + "\n".join(failures)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    import argparse  # sandboxes are started with this module, and parse nothing

    parser = argparse.ArgumentParser(prog="ringfence.guest.build", description="Compile the guest.")
    parser.add_argument("--check", action="store_true", help="compile anew, warnings are errors")
    parser.add_argument("--quiet", action="store_true", help="say nothing when it went well")
    parser.add_argument("--machine", default=platform.machine(), help="as uname -m names it")
    options = parser.parse_args(arguments)
    binary = target(options.machine)
    try:
        if options.check or not is_fresh(binary):
            build(_STRICT if options.check else (), options.machine)
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if not options.quiet:
        sys.stdout.write(f"{os.path.relpath(binary)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
