"""The cells and texts of the table that ``shipbench study --dry-run`` prints."""

from __future__ import annotations

from shipbench.cli import study_tables
from shipbench.cli.options import GridOptions
from shipbench.planning.study.cost import Cost


def test_names_and_seeds_of_a_part_fit_a_cell() -> None:
    assert [study_tables._numbers(seeds) for seeds in ({3}, {0, 1}, {2, 0, 1}, {0, 1, 5})] == [
        "3",
        "0,1",
        "0-2",
        "0,1,5",
    ]
    assert [study_tables._names(list(names)) for names in ("aba", "abc", "abcda")] == ["a, b", "a, b, c", "4"]


def test_the_time_left_is_shared_by_the_runs_at_a_time() -> None:
    left = Cost(seconds=7400.0, runs=3, measured=2)
    options = [GridOptions(tasks="", jobs=jobs) for jobs in (None, 2)]
    basis = "(1 of 3 runs by FLOPs, others by records)"
    assert [study_tables._left_text(left, each) for each in options] == [
        f"about 2 h 3 min left, counted one run after the other {basis}",
        f"about 1 h 2 min left, 2 runs at a time {basis}",
    ]
    assert study_tables._left_text(Cost(seconds=60.0, runs=1), options[0]) == (
        "about 1 min left, counted one run after the other (1 of 1 run by FLOPs, others by records)"
    )
    measured = study_tables._left_text(Cost(seconds=60.0, runs=1, measured=1), options[0])
    assert measured == "about 1 min left, counted one run after the other (at the rates of the records)"
    assert [study_tables.cost_text(Cost(seconds, 2e15, runs=1)) for seconds in (0, 90.0)] == [
        "2e+15 FLOPs", "2 min and 2e+15 FLOPs",
    ]  # fmt: skip


def test_without_a_speed_the_text_names_the_records_that_tell_it() -> None:
    left = study_tables._left_text(Cost(flops=2e15, runs=1), GridOptions(tasks=""))
    # The record of a linear probe gives no speed: its seconds leave out the forward passes.
    assert left == "2e+15 FLOPs left; their time is unknown until a method that trains on images has a record here"
