"""Cgroups are found as the kernel's files name them."""

import os
from pathlib import Path

import pytest

from ringfence.metrics import places_of
from ringfence.metrics.places import hierarchies, memberships, resolve

V1 = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
"""
V2 = "30 23 0:26 / /mnt/with\\040space rw - cgroup2 cgroup2 rw,nsdelegate\n"


def test_hierarchies_of_both_versions_are_read_from_mountinfo() -> None:
    found = {hierarchy.mount_point: hierarchy for hierarchy in hierarchies(V1)}
    assert found["/sys/fs/cgroup/cpu,cpuacct"].controllers == {"cpu", "cpuacct"}
    assert found["/sys/fs/cgroup/systemd"].controllers == {"name=systemd"}
    assert [h.version for h in found.values()] == [1, 1, 1, 2]
    assert hierarchies(V2)[0].mount_point == "/mnt/with space"


def test_a_process_is_found_in_each_hierarchy_it_is_in() -> None:
    cgroup = "8:memory:/docker/abc/box\n3:cpu,cpuacct:/box\n1:name=systemd:/x\n0::/docker/abc/box\n"
    found = resolve(memberships(cgroup), hierarchies(V1))
    assert {name: place.directory for name, place in found.items()} == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct/box",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct/box",
        "memory": "/sys/fs/cgroup/memory/box",
        "name=systemd": "/sys/fs/cgroup/systemd/x",
        "unified": "/sys/fs/cgroup/unified/docker/abc/box",
    }


@pytest.mark.parametrize("path", ["/other", "/docker/abcd", "/"])
def test_a_cgroup_outside_of_what_is_mounted_is_nowhere(path: str) -> None:
    found = resolve({"memory": path}, hierarchies(V1))
    assert found == {}


def test_a_cgroup_above_our_namespace_is_nowhere() -> None:
    assert resolve({"": "/../neighbour"}, hierarchies(V2)) == {}


def test_a_path_with_a_colon_is_kept_whole() -> None:
    assert memberships("0::/a:b/c\n") == {"": "/a:b/c"}


@pytest.mark.parametrize("path", ["/a/box", ""])
def test_what_was_moved_to_the_guests_leaf_is_in_the_sandboxs_cgroup(path: str) -> None:
    """Of version 2 alone; that of a command is its own."""
    found = memberships(f"3:pids:{path}/ringfence-guest\n0::{path}/ringfence-guest\n")
    assert found == {"": path or "/", "pids": f"{path}/ringfence-guest"}
    assert memberships(f"0::{path}/exec-1\n") == {"": f"{path}/exec-1"}


def test_places_of_this_process_are_real_directories() -> None:
    found = places_of(os.getpid())
    assert found
    assert all(Path(place.directory).is_dir() for place in found.values())


def test_a_process_that_is_not_there_has_no_places() -> None:
    with pytest.raises(ProcessLookupError):
        places_of(2**30)
