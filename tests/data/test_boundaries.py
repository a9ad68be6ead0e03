"""The boundaries of splits: counts exactly as the catalogue says, one fewer and one more, and lines at their limits."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from shipbench.data.inspection.verify import verify
from shipbench.data.types import Entry
from shipbench.data.vtab.distinctness import listed_paths
from shipbench.data.vtab.folder import UNION, TaskFolder, doubts_about, find_base, label_disagreement
from shipbench.data.vtab.split_files import parse_split
from shipbench.errors import InputError
from tests.data.builders import small_task, vtab_tree

DTD = small_task("dtd")


def entries(*labels: int) -> list[Entry]:
    return [Entry(f"images/{index}.png", label) for index, label in enumerate(labels)]


@pytest.mark.parametrize("surplus", [-1, 0, 1])
def test_every_other_count_is_warned_of(surplus: int) -> None:
    counts = {"train": DTD.n_train, "test": DTD.n_test + surplus}
    warning = doubts_about(TaskFolder(DTD, Path("vtab/dtd"), {}), counts, Path("vtab"))
    expected = f"warning: dtd has {6 + surplus} test images instead of 6; check the copy with: "
    assert warning == ("" if surplus == 0 else f"{expected}shipbench data verify vtab")


@pytest.mark.parametrize(("label", "valid"), [(0, True), (1, True), (9, True), (10, False), (11, False)])
def test_labels_lie_below_the_number_of_classes(label: int, valid: bool) -> None:
    split = parse_split(f"images/a.png {label}\n".encode(), 10)
    assert bool(split.entries) == valid
    assert bool(split.faults) != valid


@pytest.mark.parametrize("length", [119, 120, 121])
def test_messages_quote_at_most_120_characters(length: int) -> None:
    (fault,) = parse_split(b"x" * length, 10).faults
    quoted = "x" * length if length <= 120 else "x" * 120 + "..."
    assert fault.message == f"expected 'path label', found {quoted!r}"


@pytest.mark.parametrize(
    ("union", "line"),
    [
        ((1, 2, 3), None),
        ((1, 2), 3),
        ((1, 2, 3, 4), 4),
        ((0, 2, 3), 1),
        ((1, 2, 0), 3),
        ((), 1),
    ],
)
def test_the_first_line_that_differs_is_named(union: tuple[int, ...], line: int | None) -> None:
    assert label_disagreement(entries(1, 2, 3), entries(*union)) == line
    assert label_disagreement(entries(*union), entries(1, 2, 3)) == line


@pytest.mark.parametrize(
    ("splits", "repeated", "label_counts"),
    [
        ({"train800": [1, 2]}, [], []),
        ({"train800": [1], UNION: [1]}, [False], [1]),
        ({"val200": [1], "test": [1]}, [True], [1]),
        ({"val200": [1, 1]}, [True], [1]),
        ({UNION: [1, 1]}, [True], [1]),
    ],
)
def test_an_image_counts_as_repeated_from_its_second_mention_outside_the_union(
    splits: dict[str, list[int]], repeated: list[bool], label_counts: list[int]
) -> None:
    listed = listed_paths({name: [Entry(f"{path}.png", path) for path in paths] for name, paths in splits.items()})
    assert [path.repeated for path in listed] == repeated
    assert [len(path.labels) for path in listed] == label_counts


def test_training_splits_are_compared_without_a_test_split_too(tmp_path: Path) -> None:
    root = vtab_tree(tmp_path / "vtab", ["dtd"])
    (root / "dtd/test.txt").unlink()
    (report,) = verify(root, tasks=[DTD])
    assert not any("is not train800 followed by val200" in problem for problem in report.problems)
    union = root / "dtd/train800val200.txt"
    first, *others = union.read_text().splitlines()
    union.write_text("\n".join([f"{first.rsplit(' ', 1)[0]} 46", *others]) + "\n")
    (report,) = verify(root, tasks=[DTD])
    assert any("is not train800 followed by val200" in problem for problem in report.problems)


def test_a_copy_is_at_most_three_folders_below(tmp_path: Path) -> None:
    tree = vtab_tree(tmp_path / "tree", ["dtd"])
    for depth in (2, 3, 4):
        root = tmp_path / f"depth-{depth}"
        base = root.joinpath(*"abcd"[:depth])
        shutil.copytree(tree, base)
        if depth <= 3:
            assert find_base(root) == base
        else:
            with pytest.raises(InputError, match="holds no VTAB-1k task"):
                find_base(root)
