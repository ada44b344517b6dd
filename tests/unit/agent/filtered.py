"""A seccomp filter on the process that becomes a guest."""

import ctypes
import platform
import struct

from ringfence.policy.seccomp.bpf import bpf


def filter_call(name: str, **outcome: str | int) -> None:
    """What one system call gives from now on: `action` and `errnoRet` as in a profile."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": [name], **outcome}],
    }
    program = bpf(profile, platform.machine())
    code = ctypes.create_string_buffer(program, len(program))
    filters = ctypes.create_string_buffer(
        struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, filters):
        raise OSError(ctypes.get_errno(), "no filter")
