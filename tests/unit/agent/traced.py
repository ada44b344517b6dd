"""A process held at the entry of a system call of its, to be killed there."""

import ctypes
import os
import signal
import struct

_TELL_SYSCALLS = 0x1  # PTRACE_O_TRACESYSGOOD
_SEIZE, _INTERRUPT, _SYSCALL, _SYSCALL_INFO = 0x4206, 0x4207, 24, 0x420E
_ENTRY = 1
_ALL_CHILDREN = 0x40000000
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_LIBC = ctypes.CDLL(None, use_errno=True)


def _ptrace(request: int, pid: int, address: int = 0, data: object = 0) -> None:
    pointer = ctypes.c_void_p(address)
    if _LIBC.ptrace(request, pid, pointer, data) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")


class Traced:
    """From now on each of its system calls can be looked at."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        _ptrace(_SEIZE, pid, 0, ctypes.c_void_p(_TELL_SYSCALLS))
        _ptrace(_INTERRUPT, pid)
        self._wait()
        _ptrace(_SYSCALL, pid)

    def _wait(self) -> int:
        _, status = os.waitpid(self._pid, _ALL_CHILDREN)
        assert os.WIFSTOPPED(status), "it ended before"
        return status

    def _entered(self) -> int:
        """Of the call that it is about to make, or -1."""
        room = ctypes.create_string_buffer(88)
        _ptrace(_SYSCALL_INFO, self._pid, len(room), room)
        kind, number = struct.unpack_from("<B23xQ", room.raw)
        return number if kind == _ENTRY else -1

    def kill_before(self, number: int) -> None:
        """Kill it where it would make this call, which is not made then."""
        while True:
            status = self._wait()
            stopped = os.WSTOPSIG(status)
            if stopped == _SYSCALL_STOP and self._entered() == number:
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, _ALL_CHILDREN)  # its parent hears of it only then
                return
            passed_on = 0 if stopped == _SYSCALL_STOP or status >> 16 else stopped
            _ptrace(_SYSCALL, self._pid, 0, ctypes.c_void_p(passed_on))
