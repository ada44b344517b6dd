"""The command line says every confinement that was granted."""

import itertools
from pathlib import Path

import pytest

from ringfence.backends.base import Bind
from ringfence.backends.cgroups import Plan, Tree
from ringfence.backends.process import command, root
from ringfence.backends.process.etc import User
from ringfence.backends.process.home import Home
from ringfence.backends.process.machine import Machine
from ringfence.backends.process.place import Place
from ringfence.errors import ImageError, InvalidSpecError, PolicyDeniedError
from ringfence.spec import Limits, SandboxSpec, Security

SPEC = SandboxSpec(
    limits=Limits(tmp="1MiB", shm="2MiB", run="3MiB"),
    security=Security(read_only_root=True, oom_score_adj=500, tmp_exec=True),
)


def place(*, privileged: bool = True, devices: bool = False, **more: object) -> Place:
    machine = Machine("/usr/bin/bwrap", (0, 8), privileged, "/g/guest", Tree(), devices, devices)
    values = {"root": [], "user": User(1000, 1001), "plan": Plan(), **more}
    return Place(Home(Path("/state/box")), machine, **values)  # type: ignore[arg-type]


def line(spec: SandboxSpec = SPEC, **more: object) -> list[str]:
    return command.keeper(spec, place(**more))  # type: ignore[arg-type]


def pairs(args: list[str], option: str) -> list[str]:
    return [value for name, value in itertools.pairwise(args) if name == option]


def test_root_makes_no_user_namespace_and_keeps_only_what_the_guest_needs() -> None:
    args = line()
    assert {f"--unshare-{name}" for name in ("pid", "net", "ipc", "uts", "cgroup")} <= set(args)
    assert "--unshare-user" not in args
    assert {"--new-session", "--as-pid-1"} <= set(args)
    assert (pairs(args, "--cap-drop"), pairs(args, "--hostname")) == (["ALL"], ["sandbox"])
    assert pairs(args, "--cap-add") == [
        f"CAP_{name}" for name in ("KILL", "SETGID", "SETPCAP", "SETUID", "SYS_ADMIN")
    ]
    assert pairs(args, "--capabilities") == ["1e0"]


def test_an_ordinary_user_makes_one_in_which_each_command_gets_a_pid_namespace() -> None:
    args = line(privileged=False)
    assert {"--unshare-user", "--disable-userns"} <= set(args)
    assert (pairs(args, "--uid"), pairs(args, "--gid")) == (["1000"], ["1001"])
    assert pairs(args, "--cap-add") == ["CAP_SETPCAP", "CAP_SYS_ADMIN"]
    assert pairs(args, "--capabilities") == ["200100"]
    assert args[-1] == "--pidns"
    assert "--pidns" not in line()


def test_tmpfs_and_terminals_are_bounded_and_only_tmp_may_run_programs() -> None:
    args = line()
    sizes = dict(zip(pairs(args, "--tmpfs"), pairs(args, "--size"), strict=True))
    assert sizes == {"/tmp": str(2**20), "/dev/shm": str(2**21), "/run": str(3 * 2**20)}
    assert pairs(args, "--noexec") == ["/run", "/dev/shm"]
    assert pairs(args, "--inodes") == ["1024:/tmp", "3072:/run", "2048:/dev/shm"]
    assert pairs(line(privileged=False), "--inodes") == []
    assert pairs(args, "--terminals") == ["/dev/pts"]
    assert pairs(line(privileged=False), "--terminals") == []
    strict = SPEC.model_copy(update={"security": Security()})
    assert pairs(line(strict), "--noexec") == ["/tmp", "/run", "/dev/shm"]


def parts(args: list[str]) -> tuple[list[str], list[str]]:
    """bubblewrap's own part of a line, and the guest's."""
    whole = args[args.index("--") + 1 :]
    return whole[: whole.index("--enter")], whole[whole.index("--enter") :]


def test_where_devices_can_be_made_the_guest_mounts_what_needs_nothing_of_the_host() -> None:
    bwrap, guest = parts(line(devices=True))
    assert not {"--proc", "--dev", "--tmpfs"} & set(bwrap)
    assert "--terminals" not in guest
    assert "CAP_MKNOD" in pairs(bwrap, "--cap-add")
    assert (pairs(guest, "--proc"), pairs(guest, "--dev")) == (["/proc"], ["/dev"])
    assert pairs(guest, "--tmpfs") == [
        "size=1048576,nr_inodes=1024,mode=1777:/tmp",
        "noexec,size=3145728,nr_inodes=3072,mode=1777:/run",
        "noexec,size=2097152,nr_inodes=2048,mode=1777:/dev/shm",
    ]
    assert guest.index("--dev") < guest.index("--tmpfs") < guest.index("--seal")
    assert pairs(guest, "--capabilities") == ["1e0"]


def test_a_tmpfs_below_which_the_host_is_mounted_is_bubblewraps() -> None:
    binds = (Bind("/h/ca", "/run/ca.pem"), Bind("/h/x", "/tmpx/y"))
    bwrap, guest = parts(line(devices=True, binds=binds))
    assert pairs(bwrap, "--tmpfs") == ["/run"]
    assert pairs(guest, "--inodes") == ["3072:/run"]
    assert [value.split(":")[1] for value in pairs(guest, "--tmpfs")] == ["/tmp", "/dev/shm"]


def test_a_tmpfs_below_which_another_is_asked_for_is_bubblewraps_as_that_is() -> None:
    security = Security(tmpfs={"/tmp/x": 4096, "/data": 8192})
    bwrap, guest = parts(line(SPEC.model_copy(update={"security": security}), devices=True))
    assert pairs(bwrap, "--tmpfs") == ["/data", "/tmp", "/tmp/x"]
    assert [value.split(":")[1] for value in pairs(guest, "--tmpfs")] == ["/run", "/dev/shm"]


def test_a_device_of_the_host_leaves_all_of_dev_to_bubblewrap() -> None:
    spec = SPEC.model_copy(update={"security": Security(devices=("/dev/kvm",))})
    bwrap, guest = parts(line(spec, devices=True))
    assert pairs(bwrap, "--dev") == ["/dev"]
    assert "--dev" not in guest


def test_the_counter_of_kills_is_handed_to_the_guest_and_not_mounted() -> None:
    args = line(counter="/c/memory.oom_control")
    assert pairs(args[: args.index("--")], "--counter") == ["/c/memory.oom_control"]
    assert pairs(parts(args)[1], "--counter") == ["4"]
    assert "--counter" not in line()
    assert pairs(parts(line())[1], "--lifeline") == ["5"]


def test_kernel_files_are_masked_and_read_only_whatever_the_spec_says() -> None:
    args = line()
    assert {"/proc/sys", "/proc/sysrq-trigger"} <= set(pairs(args, "--read-only"))
    assert {"/proc/kcore", "/proc/keys"} <= set(pairs(args, "--mask"))
    more = SPEC.model_copy(update={"security": Security(masked_paths=("/proc/x",))})
    assert {"/proc/x", "/proc/keys"} <= set(pairs(line(more), "--mask"))


def test_binds_are_made_parents_first_below_directories_that_all_may_enter() -> None:
    binds = (Bind("/h/b", "/data/a/b", read_only=False), Bind("/h/a", "/data/a"))
    args = line(binds=binds)
    assert args.index("/h/a") < args.index("/h/b")
    assert args[args.index("/h/a") - 1] == "--ro-bind"
    assert args[args.index("/h/b") - 1] == "--bind"
    assert "/data" in pairs(args, "--dir")


def test_what_is_missing_in_what_is_bound_is_made_once_that_is_there() -> None:
    binds = (Bind("/h/b", "/data/a/b/c"), Bind("/h/a", "/data/a"))
    spec = SPEC.model_copy(update={"security": Security(tmpfs={"/data/a/t": 4096})})
    args = line(spec, binds=binds)
    assert args.index("/data") < args.index("/h/a")
    assert args.index("/h/a") < args.index("/data/a/b") < args.index("/h/b")
    assert args.index("/h/a") < args.index("/data/a/t")


def test_the_root_is_sealed_unless_it_may_be_written() -> None:
    assert pairs(line(), "--seal") == ["/dev", "/"]
    writable = SPEC.model_copy(update={"security": Security(read_only_root=False)})
    assert pairs(line(writable), "--seal") == ["/dev"]


def test_the_guest_is_bound_where_its_home_has_no_link_to_it() -> None:
    assert "/.ringfence/guest" not in pairs(line(), "/g/guest")
    assert "/.ringfence/guest" in pairs(line(linked=False), "/g/guest")
    assert pairs(line(linked=False), "--ro-bind") == ["/state/box/run", "/g/guest"]


ENTRIES = (
    root.Entry("shown", "/usr", "/usr"),
    root.Entry("link", "/bin", "usr/bin"),
    root.Entry("dir", "/var"),
)


def test_a_keeper_that_may_makes_the_root_and_bubblewrap_is_not_run() -> None:
    binds = (Bind("/h/a", "/data/a"), Bind("/h/b", "/data/b", read_only=False))
    made = place(devices=True, root=ENTRIES, binds=binds, linked=False)
    args = command.keeper(SPEC, made, begins=True)
    first, _, rest = "\0".join(args).partition("\0--\0")
    parts, _, guest = rest.partition("\0--\0")
    assert first.endswith("\0--begin")
    assert parts.split("\0") == [
        "--shown", "/usr", "/usr", "--link", "usr/bin", "/bin", "--dir", "/var",
        "--bind", "ro", "/h/a", "/data/a", "--bind", "rw", "/h/b", "/data/b",
        "--bind", "ro", "/state/box/run", "/.ringfence",
        "--bind", "ro", "/g/guest", "/.ringfence/guest",
    ]  # fmt: skip
    whole = command.keeper(SPEC, made)
    assert guest.split("\0") == whole[whole.index("--enter") - 1 :]
    assert "/usr/bin/bwrap" not in args


def test_an_ordinary_users_keeper_mounts_what_the_host_has_and_every_sandbox_of_its_own() -> None:
    entries = (root.Entry("shown", "/etc", "/state/etc"),)
    made = place(privileged=False, root=entries)
    args = command.keeper(SPEC, made, begins=True)
    first, _, rest = "\0".join(args).partition("\0--\0")
    parts, _, guest = rest.partition("\0--\0")
    assert first.endswith("\0--begin\0--user\x001000:1001")
    assert parts.split("\0") == [
        "--shown", "/state/etc", "/etc", "--bind", "ro", "/state/box/run", "/.ringfence",
        "--tmpfs", "size=1048576,nr_inodes=1024,mode=1777:/tmp",
        "--tmpfs", "noexec,size=3145728,nr_inodes=3072,mode=1777:/run",
        "--tmpfs", "noexec,size=2097152,nr_inodes=2048,mode=1777:/dev/shm",
    ]  # fmt: skip
    inside = guest.split("\0")
    assert not {"--proc", "--dev", "--tmpfs", "--noexec", "--terminals"} & set(inside)
    covers = ("--seal", "--mask", "--read-only", "--capabilities")
    wrapped = line(privileged=False)
    assert all(pairs(inside, name) == pairs(wrapped, name) for name in covers)


@pytest.mark.parametrize(
    ("taken", "wanted", "spec"),
    [
        (True, {}, SPEC),
        (True, {"binds": (Bind("/h/a", "/data/a"), Bind("/h/b", "/data/ab"))}, SPEC),
        (False, {"devices": False}, SPEC),
        (True, {"binds": (Bind("/h/b", "/data/a/b"), Bind("/h/a", "/data"))}, SPEC),
        (False, {"binds": (Bind("/h/a", "/tmp/a"),)}, SPEC),
        (False, {"binds": tuple(Bind("/h", f"/{number}") for number in range(1001))}, SPEC),
        (False, {}, SPEC.model_copy(update={"security": Security(tmpfs={"/data": 4096})})),
        (False, {}, SPEC.model_copy(update={"security": Security(devices=("/dev/kvm",))})),
    ],
)
def test_what_lies_below_what_the_guest_mounts_is_mounted_by_bubblewrap(
    taken: bool, wanted: dict[str, object], spec: SandboxSpec
) -> None:
    assert command.begins(spec, place(**{"devices": True, **wanted})) == taken  # type: ignore[arg-type]


def test_who_may_open_few_files_has_bubblewrap_mount_what_takes_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "nofile", lambda: 64)
    entries = [root.Entry("dir", f"/{number}") for number in range(33)]
    assert command.begins(SPEC, place(devices=True, root=entries[1:]))
    assert not command.begins(SPEC, place(devices=True, root=entries))


def test_more_mounts_than_bubblewrap_takes_are_refused_before_it_runs() -> None:
    """One that takes no more says so itself; that would pass for a fault that passes."""
    binds = tuple(Bind("/h", f"/data/{number}/a/b") for number in range(900))
    assert len(line(binds=binds[:700])) < 9000
    with pytest.raises(InvalidSpecError, match=r"mounts: bubblewrap takes 9000 .* 900 paths"):
        line(binds=binds)


@pytest.mark.parametrize("field", ["tmpfs", "masked_paths", "read_only_paths"])
def test_what_there_is_too_much_of_for_bubblewrap_is_named(field: str) -> None:
    """Others than mounts become its arguments, too."""
    paths = [f"/data/{number}" for number in range(4600)]
    many = dict.fromkeys(paths, 4096) if field == "tmpfs" else paths
    with pytest.raises(InvalidSpecError, match=rf"^security\.{field}: .* 4600 paths") as caught:
        line(SandboxSpec(security=Security(**{field: many})))  # type: ignore[arg-type]
    assert caught.value.context["fields"] == [f"security.{field}"]


def test_cgroups_are_the_keepers_business_before_anything_starts() -> None:
    plan = Plan(("/c/box",), (("/c/box/pids.max", "9"),), (("/c/box/tasks", "0"),), None)
    args = line(plan=plan)
    keeper = args[: args.index("--")]
    assert keeper[:3] == ["/g/guest", "--keep", "/state/box"]
    assert keeper[3:] == [
        "--make", "/c/box", "--write", "/c/box/pids.max", "9", "--inside", "/c/box/tasks", "0",
        "--pass", "6", "--attached",
    ]  # fmt: skip
    assert "--attached" not in line(SPEC.model_copy(update={"detached": True}))


def test_the_kernel_kills_commands_before_bubblewrap() -> None:
    """The guest raises the badness, which commands inherit; an ordinary user's cannot."""
    score = ["/proc/self/oom_score_adj", "500"]
    args = line()
    assert "/proc/self/oom_score_adj" not in args
    assert args[args.index("--oom-score") + 1] == "500"
    args = line(privileged=False)
    at = args.index("--inside")
    assert args[at + 1 : at + 3] == score
    assert "--oom-score" not in args


def test_the_hosts_system_and_an_image_are_put_together_entry_by_entry(tmp_path: Path) -> None:
    for name in ("usr", "bin", "proc", "tmp", "srv"):
        (tmp_path / name).mkdir()
    (tmp_path / "lib").symlink_to("usr/lib")
    host = root.host(tmp_path / "etc", "/home/user", tmp_path)
    assert root.Entry("link", "/lib", "usr/lib") in host
    assert root.Entry("shown", "/bin", str(tmp_path / "bin")) in host
    assert root.Entry("dir", "/home/user") in host
    assert not [entry for entry in host if entry.target == "/sbin"]
    image = {entry.target: entry.kind for entry in root.image(tmp_path)}
    assert image == {"/usr": "bind", "/bin": "bind", "/srv": "bind", "/lib": "link"}
    empty = tmp_path / "srv"
    with pytest.raises(ImageError, match="empty"):
        root.image(empty)
    with pytest.raises(ImageError, match="cannot be read"):
        root.image(tmp_path / "absent")


@pytest.fixture
def shown(tmp_path: Path) -> list[root.Entry]:
    """A root with links, at its top and below it."""
    usr = tmp_path / "usr"
    (usr / "bin").mkdir(parents=True)
    (usr / "bin/file").touch()
    (usr / "lib64").symlink_to("lib")
    (usr / "away").symlink_to("/data/new")
    return [
        root.Entry("bind", "/usr", str(usr)),
        root.Entry("link", "/bin", "usr/bin"),
        root.Entry("dir", "/var"),
        root.Entry("link", "/var/run", "/run"),
    ]


@pytest.mark.parametrize(
    ("path", "link"),
    [
        ("/bin", "/bin"),
        ("/bin/tool", "/bin"),
        ("/var/run/x/y", "/var/run"),
        ("/usr/lib64/x", "/usr/lib64"),
        ("/usr/away", "/usr/away"),
        ("/tree/away/x", "/tree/away"),
    ],
)
def test_nothing_is_mounted_through_a_link(path: str, link: str, shown: list[root.Entry]) -> None:
    """Neither of the root nor of what is bound there."""
    tree = {"/tree": shown[0].source}
    for tmpfs, binds in (([path], {}), ([], {path: "/h"})):
        with pytest.raises(PolicyDeniedError, match=f"'{link}' is a link to"):
            root.check_places([*shown, root.Entry("bind", "/tree", tree["/tree"])], tmpfs, binds)
    with pytest.raises(PolicyDeniedError, match=f"'{link}' is a link to"):
        root.check_places(shown, [], {**tree, path: "/h"})


def test_what_is_mounted_hides_the_links_below_it(shown: list[root.Entry], tmp_path: Path) -> None:
    (tmp_path / "plain/away").mkdir(parents=True)
    covered = {"/usr": str(tmp_path / "plain"), "/usr/away/x": "/h", "/usr/bin/file/x": "/h"}
    root.check_places(shown, [], covered)
    root.check_places(shown, ["/usr", "/usr/away"], {"/usr/lib64": "/h"})
    with pytest.raises(PolicyDeniedError):
        root.check_places(shown, ["/usr/lib"], {"/usr/lib64/x": "/h"})
    with pytest.raises(PolicyDeniedError):
        root.check_places([], ["/t/away"], {"/t": shown[0].source})
