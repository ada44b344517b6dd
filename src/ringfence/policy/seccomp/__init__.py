"""Seccomp profiles: built in, a user's own, and as BPF."""

from ringfence.policy.seccomp.bpf import bpf
from ringfence.policy.seccomp.own import addition_problem, granted, load
from ringfence.policy.seccomp.profile import architecture, known_syscalls, profile, syscalls

__all__ = [
    "addition_problem",
    "architecture",
    "bpf",
    "granted",
    "known_syscalls",
    "load",
    "profile",
    "syscalls",
]
