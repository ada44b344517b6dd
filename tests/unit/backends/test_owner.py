"""Who holds a sandbox."""

import os

from ringfence.backends.owner import Owner


def test_a_fork_is_another_owner_than_its_parent() -> None:
    """What is kept of this process is not taken for the child's: both are alive, as themselves."""
    parent = Owner.me()
    assert parent.alive()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        me = Owner.me()
        honest = me.alive() and parent.alive() and me.pid == os.getpid() and me != parent
        os.write(writing, b"1" if honest and me.start >= parent.start else b"0")
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    assert os.read(reading, 1) == b"1"
    os.close(reading)
