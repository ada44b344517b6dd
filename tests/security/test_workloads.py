"""What ordinary development does works under the strict profile, seccomp filter included."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import ringfence
from ringfence.sandbox.sandbox import Sandbox
from tests.conftest import require_docker

pytestmark = pytest.mark.docker

IMAGE = "ringfence-test/debian"

WHEEL = """
import zipfile
name = "hello-1.0"
info = "hello-1.0.dist-info"
files = {
    "hello.py": "print('hello from a wheel')\\n",
    f"{info}/METADATA": "Metadata-Version: 2.1\\nName: hello\\nVersion: 1.0\\n",
    f"{info}/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
}
record = "".join(f"{path},,\\n" for path in files) + f"{info}/RECORD,,\\n"
with zipfile.ZipFile("hello-1.0-py3-none-any.whl", "w") as wheel:
    for path, text in {**files, f"{info}/RECORD": record}.items():
        wheel.writestr(path, text)
"""
VENV = """
set -e
python3 make_wheel.py
python3 -m venv --without-pip env
if env/bin/python -c 'import ensurepip' 2>/dev/null; then
    python3 -m venv env
    env/bin/python -m pip install --no-index --no-deps hello-1.0-py3-none-any.whl
else
    site=$(env/bin/python -c 'import site; print(site.getsitepackages()[0])')
    (cd "$site" && python3 -m zipfile -e "$OLDPWD/hello-1.0-py3-none-any.whl" .)
fi
env/bin/python -m hello
"""
PYTHON = """
import asyncio, concurrent.futures, multiprocessing, os, socket, sqlite3, ssl, subprocess, tempfile
import threading

def square(number):
    return number * number

if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool:
        assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
    queue = multiprocessing.Queue()
    process = multiprocessing.get_context("spawn").Process(target=square, args=(2,))
    process.start(); process.join(); assert process.exitcode == 0
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(square, range(10))) == 285
    base = sqlite3.connect("work.db")
    base.execute("pragma journal_mode=wal")
    base.execute("create table t (n)"); base.executemany("insert into t values (?)", [(1,), (2,)])
    base.commit(); assert base.execute("select sum(n) from t").fetchone() == (3,)
    async def serve():
        async def answer(reader, writer):
            writer.write(await reader.read(5)); await writer.drain(); writer.close()
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        writer.write(b"hello"); assert await reader.read() == b"hello"
        server.close()
        process = await asyncio.create_subprocess_exec("true"); assert await process.wait() == 0
    asyncio.run(serve())
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    left, right = socket.socketpair(); left.send(b"x"); assert right.recv(1) == b"x"
    with tempfile.NamedTemporaryFile(dir=".") as file:
        os.posix_fallocate(file.fileno(), 0, 4096)
    os.mkfifo("fifo"); os.chmod("fifo", 0o600); os.symlink("fifo", "link"); os.link("work.db", "two")
    memory = multiprocessing.shared_memory.SharedMemory(create=True, size=4096) \
        if hasattr(multiprocessing, "shared_memory") else None
    if memory: memory.close(); memory.unlink()
    print("all of it")
"""
GIT = """
set -e
export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b.c
export GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b.c
git init -q -b main repo; cd repo
seq 1000 > numbers; git add numbers; git commit -q -m one
seq 2000 > numbers; git commit -q -a -m two
git gc -q; git fsck
git worktree add -q ../tree HEAD~1; wc -l < ../tree/numbers
cd ..; git clone -q repo copy; git -C copy log --oneline | wc -l
"""
MAKE = """
set -e
cat > main.c <<'END'
#include <pthread.h>
#include <stdio.h>
static void *work(void *text) { puts(text); return NULL; }
int main(void) { pthread_t one; pthread_create(&one, NULL, work, "built"); return pthread_join(one, NULL); }
END
printf 'main: main.c\\n\\tgcc -O1 -pthread -o main main.c\\n' > Makefile
make -s -j2; ./main
tar czf all.tgz main main.c; tar tzf all.tgz | wc -l
"""
TESTS = "def test_it(tmp_path):\n    (tmp_path / 'x').write_text('1')\n"


@pytest.fixture
async def sandbox(state_directory: Path) -> AsyncIterator[Sandbox]:
    """Strict but for a place where programs that were just built can be run."""
    require_docker(IMAGE)
    security = {"tmpfs": {"/scratch": "256m"}, "tmp_exec": True}
    async with ringfence.open(
        image=IMAGE, backend="docker", cwd="/scratch", security=security, limits={"timeout": 120}
    ) as sandbox:
        assert sandbox.receipt["seccomp"].requested == "strict"
        yield sandbox


async def shell(sandbox: Sandbox, script: str) -> str:
    result = await sandbox.exec(shell=script)
    assert result.ok, (result.stdout + result.stderr).decode()
    return result.stdout.decode()


async def test_python_processes_threads_sockets_and_databases(sandbox: Sandbox) -> None:
    await sandbox.files.write("/scratch/all.py", PYTHON.encode())
    assert "all of it" in await shell(sandbox, "python3 all.py")


async def test_a_virtual_environment_and_a_local_wheel(sandbox: Sandbox) -> None:
    await sandbox.files.write("/scratch/make_wheel.py", WHEEL.encode())
    assert "hello from a wheel" in await shell(sandbox, VENV)


async def test_git_commit_clone_worktree_and_gc(sandbox: Sandbox) -> None:
    assert (await shell(sandbox, GIT)).split() == ["1000", "2"]


async def test_make_gcc_threads_and_tar(sandbox: Sandbox) -> None:
    assert (await shell(sandbox, MAKE)).split() == ["built", "2"]


async def test_pytest(sandbox: Sandbox) -> None:
    await sandbox.files.write("/scratch/test_it.py", TESTS.encode())
    assert "1 passed" in await shell(sandbox, "python3 -m pytest -q -p no:cacheprovider")


@pytest.mark.parametrize("script", [
    "chmod u+s /scratch/x",
    "setarch x86_64 -R true",
    "unshare -U true",
    "python3 -c 'import socket; socket.socket(40, socket.SOCK_STREAM)'",
    "python3 -c 'import os; os.mknod(\"/scratch/null\", 0o20666, os.makedev(1, 3))'",
])  # fmt: skip
async def test_what_is_refused_by_design(sandbox: Sandbox, script: str) -> None:
    result = await sandbox.exec(shell=f"touch /scratch/x; {script}")
    assert not result.ok
    assert b"not permitted" in result.stderr.lower()
