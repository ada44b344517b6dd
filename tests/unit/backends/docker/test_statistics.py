"""The Engine's statistics as a usage, from answers as daemons give them."""

from ringfence.backends.docker.statistics import usage_of
from ringfence.spec import Usage

STARTED = "2026-11-28T20:00:00.5Z"
V1 = {
    "read": "2026-11-28T20:00:10.500000001Z",
    "pids_stats": {"current": 3, "limit": 96},
    "blkio_stats": {
        "io_service_bytes_recursive": [
            {"major": 254, "minor": 0, "op": "Read", "value": 4096},
            {"major": 254, "minor": 0, "op": "Write", "value": 8192},
            {"major": 254, "minor": 16, "op": "Read", "value": 1},
            {"major": 254, "minor": 0, "op": "Total", "value": 12288},
        ]
    },
    "cpu_stats": {
        "cpu_usage": {
            "total_usage": 2_500_000_000,
            "usage_in_kernelmode": 500_000_000,
            "usage_in_usermode": 2_000_000_000,
        },
        "throttling_data": {"periods": 1, "throttled_periods": 1, "throttled_time": 250_000_000},
    },
    "memory_stats": {
        "usage": 1000,
        "max_usage": 2000,
        "limit": 268435456,
        "stats": {"total_cache": 300, "total_pgfault": 40, "total_pgmajfault": 2},
    },
    "networks": {"eth0": {"rx_bytes": 5, "tx_bytes": 7}, "eth1": {"rx_bytes": 1, "tx_bytes": 1}},
}


def test_every_number_of_a_version_1_daemon_has_its_unit() -> None:
    assert usage_of(V1, STARTED) == Usage(
        cpu_seconds=2.5,
        cpu_user_seconds=2.0,
        cpu_system_seconds=0.5,
        cpu_throttled_seconds=0.25,
        memory=1000,
        memory_peak=2000,
        memory_limit=268435456,
        memory_cache=300,
        page_faults=40,
        major_page_faults=2,
        pids=3,
        disk_read=4097,
        disk_written=8192,
        network_received=6,
        network_sent=8,
        uptime=10.0,
        source="engine",
    )


def test_version_2_has_other_names_and_no_limit_is_none() -> None:
    memory = {"usage": 9, "limit": 2**63 - 1, "stats": {"file": 4, "pgfault": 5, "pgmajfault": 6}}
    usage = usage_of({**V1, "memory_stats": memory}, STARTED)
    assert (usage.memory_cache, usage.page_faults, usage.major_page_faults) == (4, 5, 6)
    assert (usage.memory_limit, usage.memory_peak) == (None, None)


def test_what_is_missing_or_makes_no_sense_is_none() -> None:
    usage = usage_of({"read": "soon", "memory_stats": {"usage": "much"}, "cpu_stats": []}, "")
    assert usage == Usage(source="engine", network_received=0, network_sent=0)
