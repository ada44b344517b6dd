"""Each of the kernel's files is understood, and what is no such file is an error or nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.metrics import parse

MEMORY_STAT = b"""anon 1060864
file 10563584
kernel 3
pgfault 100520
pgmajfault 17
"""
CPU_STAT = b"""usage_usec 1500000
user_usec 1000000
system_usec 500000
nice_usec 0
core_sched.force_idle_usec 0
nr_periods 10
nr_throttled 2
throttled_usec 250000
nr_bursts 0
burst_usec 0
"""
IO_STAT = b"""254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0
8:0 rbytes=1000 wbytes=0 rios=1 wios=0 dbytes=0 dios=0
7:0
"""
BLKIO = b"""254:0 Read 4096
254:0 Write 8192
254:0 Sync 4096
254:0 Async 8192
254:0 Discard 0
254:0 Total 12288
8:0 Read 1000
Total 12288
"""
NET_DEV = b"""Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo
    lo: 1000 1 0 0 0 0 0 0 1000 1 0 0 0 0 0 0
  eth0:2000 1 0 0 0 0 0 0 30 1 0 0 0 0 0 0
  eth1: 5 1 0 0 0 0 0 0 6 1 0 0 0 0 0 0
"""


def test_version_2_files() -> None:
    assert parse.memory_stat_v2(MEMORY_STAT) == {
        "page_faults": 100520,
        "major_page_faults": 17,
        "memory_cache": 10563584,
    }
    assert parse.cpu_stat_v2(CPU_STAT) == {
        "cpu_seconds": 1.5,
        "cpu_user_seconds": 1.0,
        "cpu_system_seconds": 0.5,
        "cpu_throttled_seconds": 0.25,
    }
    assert parse.io_stat_v2(IO_STAT) == {"disk_read": 5096, "disk_written": 8192}
    events = b"low 0\nhigh 0\nmax 7\noom 2\noom_kill 3\noom_group_kill 0\n"
    assert parse.memory_events_v2(events) == {"oom_kills": 3}


def test_version_1_files() -> None:
    stat = b"pgfault 1\ntotal_cache 3\ntotal_pgfault 5\ntotal_pgmajfault 2\n"
    assert parse.memory_stat(stat) == {
        "page_faults": 5,
        "major_page_faults": 2,
        "memory_cache": 3,
    }
    assert parse.oom_control(b"oom_kill_disable 0\nunder_oom 0\noom_kill 4\n") == {"oom_kills": 4}
    assert parse.oom_control(b"oom_kill_disable 0\nunder_oom 0\n") == {"oom_kills": None}
    assert parse.cpu_stat(b"nr_periods 0\nthrottled_time 1500000000\n") == {
        "cpu_throttled_seconds": 1.5
    }
    assert parse.blkio(BLKIO) == {"disk_read": 5096, "disk_written": 8192}
    assert parse.blkio(b"Total 0\n") == {"disk_read": 0, "disk_written": 0}


def test_network_counts_all_interfaces_but_the_loopback_one() -> None:
    assert parse.net_dev(NET_DEV) == {"network_received": 2005, "network_sent": 36}


@pytest.mark.parametrize(
    ("text", "value"),
    [(b"max\n", None), (b"9223372036854771712\n", None), (b"4096\n", 4096), (b"0\n", 0)],
)
def test_a_limit_that_is_none_is_none(text: bytes, value: int | None) -> None:
    assert parse.limit("memory_limit")(text) == {"memory_limit": value}


def test_numbers_are_scaled_and_lines_are_counted() -> None:
    assert parse.number("cpu_seconds", 1e9)(b"2500000000\n") == {"cpu_seconds": 2.5}
    assert parse.lines("processes")(b"1\n2\n3\n") == {"processes": 3}
    assert parse.lines("processes")(b"") == {"processes": 0}


@given(st.binary(max_size=200))
def test_whatever_is_read_gives_values_or_a_value_error(data: bytes) -> None:
    for files in (*parse.V1.values(), *parse.V2.values()):
        for _, how in files:
            try:
                assert all(isinstance(name, str) for name in how(data))
            except ValueError:
                continue
