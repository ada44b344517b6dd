"""Parts of a spec are built when they are first used, by whatever thread."""

import subprocess
import sys

_AT_ONCE = """
import sys, threading
from ringfence.spec import Mount, Network, Repository, Rule, SandboxSpec

sys.setswitchinterval(1e-6)
wrong, ready = [], threading.Barrier(8)

def use():
    ready.wait()
    try:
        for make in (
            lambda: Rule(host="pypi.org"),
            lambda: Mount(source="/a", destination="/b"),
            lambda: Repository(path="."),
            lambda: Network(mode="proxy", allow=["pypi.org"]),
            lambda: SandboxSpec(repository="."),
        ):
            value = make()
            assert type(value).model_validate(value.model_dump()) == value
    except BaseException as error:
        wrong.append(repr(error))

threads = [threading.Thread(target=use) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
sys.exit("; ".join(wrong) or 0)
"""


def test_threads_may_use_a_part_for_the_first_time_at_once() -> None:
    """None of them meets another's half-built schema."""
    ended = subprocess.run(
        [sys.executable, "-c", _AT_ONCE], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_a_default_that_is_not_validated_is_the_same_value() -> None:
    """What spares every start the building is no other value."""
    from ringfence.policy import NO_CEILING, Ceiling
    from ringfence.spec import GitIdentity, Limits, Repository, SandboxSpec

    assert NO_CEILING == Ceiling() == Ceiling.parse(NO_CEILING.model_dump())
    assert SandboxSpec().limits == Limits() == Limits.parse({"ulimits": {}})
    assert Repository(path=".").git == GitIdentity()
