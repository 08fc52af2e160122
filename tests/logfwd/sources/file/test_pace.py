"""How often files are listed, by what that costs, and how often they are read; time is an argument."""

from __future__ import annotations

import pytest

from logfwd.sources.file.pace import SCAN_SHARE, TRICKLE_SECONDS, URGENT_SCAN_SHARE, Pace, Reads


def test_cheap_scans_are_as_frequent_as_configured_and_a_change_is_looked_at_at_once() -> None:
    pace = Pace(scan_seconds=1.0)
    assert pace.next_scan(wanted=False) == 0.0
    pace.scanned(100.0, 100.0, cpu_seconds=0.0)
    assert (pace.next_scan(wanted=False), pace.next_scan(wanted=True)) == (101.0, 100.0)


def test_scans_take_no_more_than_their_share_of_a_core() -> None:
    pace = Pace(scan_seconds=1.0)
    for began in (100.0, 200.0):
        pace.scanned(began, began + 0.5, cpu_seconds=0.5)
    assert pace.next_scan(wanted=False) == 200.0 + 0.5 / SCAN_SHARE
    assert pace.next_scan(wanted=True) == 200.5 + 0.5 / URGENT_SCAN_SHARE


def test_one_expensive_scan_does_not_delay_the_next() -> None:
    """A scan that releases a large deleted file makes the kernel free its pages, which takes tenths of a CPU second."""
    pace = Pace(scan_seconds=30.0)
    pace.scanned(100.0, 100.001, cpu_seconds=0.001)
    pace.scanned(130.0, 130.7, cpu_seconds=0.6)
    assert pace.next_scan(wanted=True) == pytest.approx(131.4)  # it took 0.7 s, so reading gets as long
    pace.scanned(140.0, 140.7, cpu_seconds=0.6)
    assert pace.next_scan(wanted=True) == pytest.approx(140.7 + 0.6 / URGENT_SCAN_SHARE)


def test_a_slow_disk_leaves_reading_as_much_time_as_it_takes() -> None:
    pace = Pace(scan_seconds=1.0)
    pace.scanned(100.0, 104.0, cpu_seconds=0.0)
    assert (pace.next_scan(wanted=False), pace.next_scan(wanted=True)) == (108.0, 108.0)


def test_what_is_written_in_a_quiet_moment_is_read_at_once() -> None:
    reads = Reads(most_bytes=1600)
    assert reads.at < 0
    reads.done(10.0, 0, woken=False)
    assert reads.at < 0, "a scan that finds nothing holds up nobody"


def test_a_trickle_is_read_in_larger_pieces_and_what_has_piled_up_without_a_pause() -> None:
    reads = Reads(most_bytes=1600)
    reads.done(10.0, 1, woken=True)
    assert reads.at == 10.0 + TRICKLE_SECONDS
    reads.done(11.0, 0, woken=True)
    assert reads.at == 11.0 + TRICKLE_SECONDS, "the beginning of a line was written"
    reads.done(12.0, 799, woken=False)
    assert reads.at == 12.0 + TRICKLE_SECONDS
    reads.done(13.0, 800, woken=False)
    assert reads.at == 13.0
