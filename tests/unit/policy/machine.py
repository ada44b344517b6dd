"""A machine for classic BPF as seccomp runs it, and libseccomp as a second opinion."""

import ctypes
import ctypes.util
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any

AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_LOAD, _AND, _JUMP, _RETURN = 0x20, 0x54, 0x05, 0x06
_COMPARE = {0x15: lambda a, k: a == k, 0x25: lambda a, k: a > k, 0x35: lambda a, k: a >= k}


def run(program: bytes, arch: int, number: int, args: Sequence[int]) -> int:
    """What the filter answers to one call."""
    data = struct.pack("<iIQ6Q", number if number < 2**31 else number - 2**32, arch, 0, *args)
    at = accumulator = 0
    while True:
        code, true, false, k = struct.unpack_from("<HBBI", program, at * 8)
        at += 1
        if code == _LOAD:
            accumulator = struct.unpack_from("<I", data, k)[0]
        elif code == _AND:
            accumulator &= k
        elif code == _JUMP:
            at += k
        elif code == _RETURN:
            return int(k)
        else:
            # libseccomp also writes the negated forms by exchanging the branches only.
            at += true if _COMPARE[code](accumulator, k) else false


_ACTIONS = {"SCMP_ACT_ALLOW": 0x7FFF0000, "SCMP_ACT_ERRNO": 0x00050000}
_OPERATORS = {
    f"SCMP_CMP_{name}": number
    for number, name in enumerate(("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"), 1)
}


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def library() -> ctypes.CDLL | None:
    name = ctypes.util.find_library("seccomp") or "libseccomp.so.2"
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def by_libseccomp(lib: ctypes.CDLL, profile: Mapping[str, Any], arch: str) -> bytes:
    """The profile as libseccomp compiles it, the way runc asks it to."""
    lib.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(lib.seccomp_init(ctypes.c_uint32(_action(profile, "defaultAction"))))
    token = ctypes.c_uint32(AUDIT[arch])
    native = ctypes.c_uint32(lib.seccomp_arch_native())
    if native.value != token.value:
        assert lib.seccomp_arch_add(context, token) == 0
        assert lib.seccomp_arch_remove(context, native) == 0
    for entry in profile["syscalls"]:
        conditions = [
            _Comparison(c["index"], _OPERATORS[c["op"]], c["value"], c.get("valueTwo", 0))
            for c in entry.get("args", ())
        ]
        for name in entry["names"]:
            number = lib.seccomp_syscall_resolve_name(name.encode())
            if number < 0:
                continue
            array = (_Comparison * max(1, len(conditions)))(*conditions)
            action = ctypes.c_uint32(_action(entry, "action"))
            error = lib.seccomp_rule_add_array(context, action, number, len(conditions), array)
            assert error in (0, -17), (name, error)
    descriptor = os.memfd_create("bpf")
    try:
        assert lib.seccomp_export_bpf(context, descriptor) == 0
        return os.pread(descriptor, 2**20, 0)
    finally:
        os.close(descriptor)
        lib.seccomp_release(context)


def _action(entry: Mapping[str, Any], field: str) -> int:
    answer = _ACTIONS[entry[field]]
    return answer | (entry.get("errnoRet") or 1) if answer == 0x50000 else answer
