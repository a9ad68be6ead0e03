"""Runs found by a prefix of their id."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipbench.errors import InputError
from shipbench.results.lookup import find_run, run_ids


def folder(root: Path, *ids: str) -> Path:
    (root / "runs").mkdir(parents=True)
    for run_id in ids:
        (root / "runs" / f"{run_id}.parquet").touch()
    return root


def test_a_unique_prefix_is_enough(tmp_path: Path) -> None:
    results = folder(tmp_path, "91d9", "91aa", "0123")
    assert find_run(results, "0") == "0123"
    assert find_run(results, "91d") == "91d9"
    assert find_run(results, "91aa") == "91aa"


def test_an_id_that_begins_another_one_is_found(tmp_path: Path) -> None:
    assert find_run(folder(tmp_path, "a1", "a12"), "a1") == "a1"


def test_an_ambiguous_prefix_lists_its_candidates(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'9' matches several runs in .*: 91aa, 91d9; give more characters"):
        find_run(folder(tmp_path, "91d9", "91aa", "0123"), "9")


def test_a_long_list_of_candidates_is_cut(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a08, a09, 5 more; give"):
        find_run(folder(tmp_path, *(f"a{number:02}" for number in range(15))), "a")


def test_an_unknown_run_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run '91d8' in .* \(did you mean '91d9'\?\)"):
        find_run(folder(tmp_path, "91d9", "0123"), "91d8")


def test_the_command_that_lists_the_runs_can_be_copied(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"see 'shipbench list runs --results '.*/my results''"):
        find_run(tmp_path / "my results", "91d8")


def test_a_missing_folder_and_hidden_files_hold_no_runs(tmp_path: Path) -> None:
    assert run_ids(tmp_path / "nothing") == []
    assert run_ids(folder(tmp_path / "r", "._91d9", "91d9")) == ["91d9"]


@given(st.sets(st.text("0123456789abcdef", min_size=4, max_size=4), min_size=1, max_size=8), st.data())
def test_a_prefix_finds_a_run_exactly_if_no_other_run_begins_with_it(
    tmp_path_factory: pytest.TempPathFactory, ids: set[str], data: st.DataObject
) -> None:
    results = folder(tmp_path_factory.mktemp("results"), *ids)
    prefix = data.draw(st.sampled_from(sorted(ids)))[: data.draw(st.integers(1, 4))]
    matching = [run_id for run_id in ids if run_id.startswith(prefix)]
    if len(matching) == 1:
        assert find_run(results, prefix) == matching[0]
    else:
        with pytest.raises(InputError):
            find_run(results, prefix)
