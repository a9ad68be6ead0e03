"""The images that a finished run is scored on, where the source has nothing to train on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shipbench.data import find
from shipbench.errors import InputError
from shipbench.record import RunRecord
from shipbench.runs.evaluation_images import images_elsewhere, open_images
from shipbench.tasks import Task, get_task, parse_tasks
from tests.data.formats.hub_tables import metadata, parquet, shard
from tests.data.formats.trees import table, tree
from tests.results.test_store import make_record
from tests.tasks.pictures import image_folder

NAMES = ("ant", "bee")
ROWS = "a.png,ant,{0}\nb.png,bee,{0}\nc.png,bee,{0}\n"

Make = Callable[[Path], str]


@pytest.fixture
def record() -> RunRecord:
    return make_record(task="bugs", source="folder", num_classes=2, class_names=json.dumps(NAMES))


def count(record: RunRecord, task: Task) -> int:
    images = open_images(record, "squash", task, None).identified()
    assert images.copy.counts == images_elsewhere(task, None).counts
    labels = images.copy.source.open_split("test").labels
    assert set(labels.tolist()) == {0, 1}
    return len(labels)


def a_folder(root: Path) -> str:
    tree(root, "test/ant/1.png", "test/bee/1.png", "test/bee/2.png")
    return f"folder:{root}"


def classes_in_test_alone(root: Path) -> str:
    tree(root, "train/ant/1.png", "test/ant/2.png", "test/bee/1.png", "test/bee/2.png")
    return f"folder:{root}"


def validation_images(root: Path) -> str:
    tree(root, "val/ant/1.png", "val/bee/1.png", "val/bee/2.png")
    return f"folder:{root}"


def a_table(root: Path) -> str:
    return f"csv:{table(root, 'image,label,split' + chr(10) + ROWS.format('test'))}"


def a_table_of_partitions(root: Path) -> str:
    return f"csv:{table(root, 'image,label,partition' + chr(10) + ROWS.format('test'))}"


def a_table_called_test(root: Path) -> str:
    table(root, "image,label\na.png,ant\nb.png,bee\nc.png,bee\n", "test.csv")
    return f"csv:{root}"


def a_hub_split(root: Path) -> str:
    shard(root / "data", "test", [0, 1, 1], {"label": NAMES})
    return f"hf:{root}"


def a_column_of_a_hub_table(root: Path) -> str:
    parquet(root / "all.parquet", label=["ant", "bee", "bee"], fold=["eval"] * 3)
    return f"hf:{root}"


def a_column_of_metadata(root: Path) -> str:
    metadata(root, "file_name,label,split\n" + ROWS.format("test"))
    tree(root, "a.png", "b.png", "c.png")
    return f"hf:{root}"


@pytest.mark.parametrize(
    "make",
    [
        *(a_folder, classes_in_test_alone, validation_images, a_table, a_table_of_partitions, a_table_called_test),
        *(a_hub_split, a_column_of_a_hub_table, a_column_of_metadata),
    ],
)
def test_images_to_evaluate_on_need_none_to_train_on(make: Make, record: RunRecord, tmp_path: Path) -> None:
    assert count(record, get_task(make(tmp_path / "outdoors"))) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (a_folder, r"has no train split \(its splits: test\); name it in the task file"),
        (classes_in_test_alone, r"1 class without images in train: bee \(only in test\)"),
        (a_table, r"the column 'split' of .* has no train split \(its splits: test\)"),
        (a_column_of_a_hub_table, r"the column 'fold' of .* has no train split \(its splits: eval\)"),
        (a_column_of_metadata, r"the column 'split' of .* has no train split \(its splits: test\)"),
    ],
)
def test_runs_are_not_trained_on_them(make: Make, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        find(get_task(make(tmp_path / "outdoors")), None, ("train", "test"))


def test_classes_of_test_images_alone_are_compared_with_those_of_the_run(record: RunRecord, tmp_path: Path) -> None:
    more = get_task(f"folder:{tree(tmp_path / 'more', *(f'test/{name}/1.png' for name in (*NAMES, 'wasp')))}")
    fewer = get_task(f"folder:{tree(tmp_path / 'fewer', 'test/ant/1.png', 'test/wasp/1.png')}")
    with pytest.raises(InputError, match=r"more does not have the classes of run a1: it has 'wasp' besides"):
        open_images(record, "squash", more, None).identified()
    with pytest.raises(InputError, match=r"it lacks 'bee' and has 'wasp' besides"):
        open_images(record, "squash", fewer, None).identified()


def test_a_split_on_which_the_run_may_have_been_trained_is_not_scored(record: RunRecord, tmp_path: Path) -> None:
    """A task file can make training images of the only split, with ``splits = { train = "test" }``."""
    task = get_task(a_folder(tmp_path / "bugs"))
    with pytest.raises(InputError, match="bugs has the name of the source of run a1 but other images"):
        open_images(record, "squash", task, None).identified()


def test_a_task_file_draws_from_test_images_alone(record: RunRecord, tmp_path: Path) -> None:
    image_folder(tmp_path / "outdoors", {"test": (4, 6)}, NAMES)
    (tmp_path / "task.toml").write_text(
        '[suite]\nname = "own"\n[[task]]\nname = "outdoors"\nsource = "folder:outdoors"\ntest = 4\n'
    )
    (task,) = parse_tasks(str(tmp_path / "task.toml"))
    assert count(record, task) == 4
    with pytest.raises(InputError, match="asks for 11 test images, but only 10"):
        open_images(record, "squash", replace(task, draw=replace(task.draw, test=11)), None).identified()
