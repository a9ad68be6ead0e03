"""Runs selected in one word: a folder, and the values of columns and settings."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from shipbench.errors import InputError
from shipbench.results.selecting import parse_selector

FRAME = pd.DataFrame(
    [
        ("a1", "ship", "aa11", "bb11", "0.1.0", "c0ffee", 0.01, 3, True),
        ("b2", "ship", "aa22", "bb22", "0.2.0", "", 1e-3, None, False),
        ("c3", "linear", "cc33", "bb23", "0.2.0", "c0ffee+", None, None, None),
    ],
    columns=[
        *("run_id", "method", "data_fingerprint", "backbone_sha256", "shipbench_version", "git_commit"),
        *("cfg.lr", "cfg.end_layer", "cfg.learn_scale"),
    ],
)


@pytest.mark.parametrize(
    ("selection", "runs"),
    [
        ("", ["a1", "b2", "c3"]),
        ("method=ship,lr=1e-2", ["a1"]),
        ("lr=0.010|0.001", ["a1", "b2"]),
        ("end_layer=,method=ship", ["b2"]),
        ("end_layer=3.0", ["a1"]),
        ("data_fingerprint=aa", ["a1", "b2"]),
        ("backbone_sha256=bb2", ["b2", "c3"]),
        ("version= 0.2.0 ", ["b2", "c3"]),
        ("commit=c0", ["a1", "c3"]),
        ("commit=", ["b2"]),
        ("learn_scale=true", ["a1"]),
        ("learn_scale=False", ["b2"]),
        # The name of a file may not be as long.
        (f"run_id={'|'.join(f'a{number}' for number in range(100))}", ["a1"]),
    ],
)
def test_the_values_that_a_run_must_have(selection: str, runs: list[str], tmp_path: Path) -> None:
    selector = parse_selector(f"{tmp_path}@{selection}" if selection else str(tmp_path), Path("default"))
    assert selector.folder == tmp_path
    assert list(selector.select(FRAME)["run_id"]) == runs


def test_values_that_no_run_has_are_no_unknown_names() -> None:
    with pytest.raises(InputError, match=r"@method=shpi,run_id=a1,lr=1: no run matches"):
        parse_selector("@method=shpi,run_id=a1,lr=1", Path("default")).select(FRAME)


def test_a_folder_may_have_the_sign_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "a@b").mkdir()
    selectors = [parse_selector(text, Path("default")) for text in (f"{tmp_path}/a@b", "@seed=0")]
    assert [(selector.folder, dict(selector.values)) for selector in selectors] == [
        (tmp_path / "a@b", {}),
        (Path("default"), {"seed": ("0",)}),
    ]
