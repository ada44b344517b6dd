"""The readable source of the seccomp profiles: which syscalls are refused, by whom, and why.

A profile allows every syscall in the tables that no group of it refuses; a syscall the tables do
not know is refused. Rules by argument are in `arguments`.
"""

from dataclasses import dataclass

STRICT, STANDARD, PERMISSIVE = "strict", "standard", "permissive"
_ALL = frozenset({STRICT, STANDARD, PERMISSIVE})
_GUARDED = frozenset({STRICT, STANDARD})
_STRICT = frozenset({STRICT})


@dataclass(frozen=True, slots=True)
class Group:
    """Syscalls that the profiles in `refused_by` refuse with `errno` (a name), and the reason."""

    name: str
    reason: str
    syscalls: tuple[str, ...]
    refused_by: frozenset[str] = _ALL
    errno: str = "EPERM"


GROUPS = (
    Group(
        "filters",
        "argument structures in memory cannot be filtered; the C library falls back to the calls"
        " whose arguments can",
        ("clone3", "openat2", "fchmodat2"),
        errno="ENOSYS",
    ),
    Group(
        "mounts",
        "changing what is mounted would undo the read-only root and every hidden path",
        ("mount", "umount2", "pivot_root", "chroot", "fsopen", "fsconfig", "fsmount", "fspick",
         "open_tree", "open_tree_attr", "move_mount", "mount_setattr", "statmount", "listmount"),
    ),
    Group(
        "namespaces",
        "a user namespace gives every capability in it, and with them most of the kernel's holes",
        ("unshare", "setns"),
    ),
    Group(
        "kernel programs",
        "programs and probes inside the kernel reach beyond the sandbox",
        ("bpf", "perf_event_open"),
    ),
    Group(
        "page faults",
        "holding the kernel in a page fault makes its races winnable",
        ("userfaultfd",),
    ),
    Group(
        "io_uring",
        "its operations pass by every seccomp filter, and it has had many holes",
        ("io_uring_setup", "io_uring_enter", "io_uring_register"),
    ),
    Group(
        "keyrings",
        "keys and their quota belong to the host's user, not to the sandbox",
        ("add_key", "request_key", "keyctl"),
    ),
    Group(
        "kernel modules and reboot",
        "they change the kernel of the host",
        ("init_module", "finit_module", "delete_module", "create_module", "query_module",
         "get_kernel_syms", "kexec_load", "kexec_file_load", "reboot"),
    ),
    Group(
        "administration",
        "swap, accounting, quotas, the kernel's log and terminals are the host's",
        ("swapon", "swapoff", "acct", "quotactl", "quotactl_fd", "syslog", "vhangup",
         "lsm_set_self_attr"),
    ),
    Group(
        "clocks and names",
        "time and names are shared or are part of how a sandbox is recognised",
        ("settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "sethostname",
         "setdomainname"),
    ),
    Group("ports", "direct access to hardware", ("iopl", "ioperm")),
    Group(
        "file handles",
        "opening by handle passes by the directories that are hidden",
        ("open_by_handle_at", "fanotify_init", "lookup_dcookie"),
    ),
    Group(
        "memory placement",
        "placing pages affects other sandboxes and helps attacks on the kernel's allocator",
        ("mbind", "set_mempolicy", "set_mempolicy_home_node", "migrate_pages", "move_pages"),
    ),
    Group(
        "other processes' kernel objects",
        "comparing and taking over descriptors of other processes",
        ("kcmp", "pidfd_getfd"),
    ),
    Group(
        "obsolete",
        "nothing that is built today uses them, and what nobody uses nobody watches",
        ("uselib", "ustat", "sysfs", "_sysctl", "nfsservctl", "afs_syscall", "getpmsg", "putpmsg",
         "security", "tuxcall", "vserver", "epoll_ctl_old", "epoll_wait_old", "get_thread_area",
         "set_thread_area"),
    ),
    Group(
        "tracing",
        "a debugger writes into other processes, the first one included",
        ("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease"),
        _GUARDED,
    ),
    Group(
        "rare memory calls",
        "hardly used by programs, much used by exploits",
        ("modify_ldt", "remap_file_pages", "vmsplice", "memfd_secret"),
        _STRICT,
    ),
    Group(
        "rare file calls",
        "file handles and marks serve servers, not tasks",
        ("name_to_handle_at", "fanotify_mark"),
        _STRICT,
    ),
    Group(
        "kernel asynchronous I/O",
        "its requests are counted for all of the host, and one sandbox could take them all; hardly"
        " used, libraries fall back to threads",
        ("io_setup", "io_submit", "io_getevents", "io_pgetevents", "io_cancel", "io_destroy"),
        _GUARDED,
    ),
    Group(
        "System V message queues",
        "hardly used, and a favourite for shaping the kernel's heap",
        ("msgget", "msgsnd", "msgrcv", "msgctl"),
        _STRICT,
    ),
)  # fmt: skip
"""Every group, the ones that all profiles refuse first."""

GUEST = (
    "capget", "capset", "chdir", "clock_gettime", "clone", "close", "connect", "dup2", "dup3",
    "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_wait", "execve", "exit", "exit_group",
    "fchdir", "fcntl", "fork", "fstat", "getdents64", "getpid", "getrusage", "inotify_add_watch",
    "inotify_init1", "ioctl", "kill", "memfd_create", "mmap", "munmap", "newfstatat", "open",
    "openat", "pidfd_open", "pidfd_send_signal", "pipe2", "poll", "ppoll", "prctl", "prlimit64",
    "read", "recvmsg", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "seccomp", "sendmsg",
    "setfsgid", "setfsuid", "setgroups", "setpgid", "setresgid", "setresuid", "setsid",
    "signalfd4", "socket", "timerfd_create", "timerfd_settime", "vfork", "wait4", "waitid",
    "write", "writev",
)  # fmt: skip
"""What the guest itself calls: on Docker the profile of the container binds it too."""


def group_of(syscall: str, profile: str) -> Group | None:
    """The group for which `profile` refuses a syscall, None when it does not."""
    for group in GROUPS:
        if syscall in group.syscalls and profile in group.refused_by:
            return group
    return None
