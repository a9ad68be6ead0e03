"""The draw of training, validation and test images from the splits of a source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from shipbench.data.drawing import Drawing, draw
from shipbench.data.types import Entry
from shipbench.errors import InputError
from shipbench.tasks import Task
from shipbench.tasks.catalogue import Draw

NAMES = ("ant", "bee", "wasp")


def entries(split: str, sizes: Sequence[int]) -> tuple[Entry, ...]:
    return tuple(
        Entry(f"{split}/{NAMES[label]}/{index}.png", label) for label, n in enumerate(sizes) for index in range(n)
    )


def drawn(splits: Mapping[str, Sequence[int]], **changes: Any) -> Drawing:
    task = Task("bugs", "Natural", "bugs", 0, 0, 0, "folder", "", location="bugs", **changes)
    return draw(task, {name: entries(name, sizes) for name, sizes in splits.items()}, NAMES)


def counts(drawing: Drawing, split: Any) -> list[int]:
    times = Counter(entry.label for entry in drawing.splits[split])
    return [times[label] for label in range(len(NAMES))]


def test_a_source_with_all_splits_is_used_as_it_is() -> None:
    drawing = drawn({"train": (5, 6, 7), "val": (1, 2, 3), "test": (2, 2, 2)})
    assert not drawing.held_out
    assert drawing.splits["train800"] == entries("train", (5, 6, 7))
    assert drawing.splits["val200"] == entries("val", (1, 2, 3))
    assert drawing.splits["train"] == (*drawing.splits["train800"], *drawing.splits["val200"])
    assert drawing.splits["test"] == entries("test", (2, 2, 2))


def test_a_fifth_of_each_class_is_held_out_and_a_fifth_of_the_rest_validates() -> None:
    drawing = drawn({"train": (100, 50, 2)})
    assert drawing.held_out
    assert counts(drawing, "test") == [20, 10, 1]
    assert counts(drawing, "val200") == [16, 8, 0]
    assert counts(drawing, "train800") == [64, 32, 1]
    parts = [set(drawing.splits[name]) for name in ("train800", "val200", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 152


def test_numbers_are_drawn_evenly_and_small_classes_leave_their_share_to_others() -> None:
    splits = {"train": (100, 100, 100), "test": (9, 9, 9)}
    drawing = drawn(splits, draw=Draw(80, 20, 6))
    assert sorted(counts(drawing, "train800")) == [26, 27, 27]
    assert sorted(counts(drawing, "val200")) == [6, 7, 7]
    assert counts(drawing, "test") == [2, 2, 2]
    assert len(drawing.splits["train"]) == 100
    assert not set(drawing.splits["train800"]) & set(drawing.splits["val200"])
    assert counts(drawn({**splits, "train": (100, 3, 100)}, draw=Draw(43, 20)), "train800") == [20, 3, 20]


def test_val_alone_is_drawn_from_train_and_leaves_every_class_an_image() -> None:
    drawing = drawn({"train": (3, 3, 3), "test": (1, 1, 1)}, draw=Draw(val=6))
    assert (counts(drawing, "train800"), counts(drawing, "val200")) == ([1, 1, 1], [2, 2, 2])


@pytest.mark.parametrize(("number", "sizes"), [(None, (16, 4)), (4, (16, 4))])
def test_images_that_are_listed_twice_count_twice(number: int | None, sizes: tuple[int, int]) -> None:
    twice = [entry for entry in entries("train", (5, 5)) for _ in range(2)]
    task = Task("bugs", "Natural", "bugs", 0, 0, 0, "folder", "", location="bugs", draw=Draw(val=number))
    drawing = draw(task, {"train": twice, "test": entries("test", (1, 1))}, NAMES[:2])
    fit, val = drawing.splits["train800"], drawing.splits["val200"]
    assert ((len(fit), len(val)), set(fit) & set(val)) == (sizes, set())
    assert set(Counter((*fit, *val)).values()) == {2}


def test_a_fifth_of_the_drawn_training_images_validates_if_no_number_is_given() -> None:
    drawing = drawn({"train": (90, 90, 90), "test": (1, 1, 1)}, draw=Draw(train=30))
    assert (counts(drawing, "train800"), counts(drawing, "val200")) == ([8, 8, 8], [2, 2, 2])


def test_a_draw_depends_on_the_paths_alone() -> None:
    splits = {"train": entries("train", (30, 30, 30)), "test": entries("test", (3, 3, 3))}
    task = Task("bugs", "Natural", "bugs", 0, 0, 0, "folder", "", location="bugs", draw=Draw(30, 9))
    one = draw(task, splits, NAMES)
    turned = draw(task, {name: tuple(reversed(part)) for name, part in splits.items()}, NAMES)
    assert {name: set(part) for name, part in one.splits.items()} == {
        name: set(part) for name, part in turned.splits.items()
    }
    assert one.splits["train800"] != entries("train", (10, 10, 10))


def written(drawing: Drawing) -> tuple[str, str, str]:
    """Return train800, val200 and test as ``ant3 wasp0``."""
    train, val, test = (
        " ".join("".join(entry.path.removesuffix(".png").split("/")[1:]) for entry in drawing.splits[name])
        for name in ("train800", "val200", "test")
    )
    return train, val, test


def test_draws_are_pinned() -> None:
    """A run id does not change with a draw: other images here are another training set under the same id."""
    assert written(drawn({"train": (8, 9, 3)})) == (
        "ant0 ant2 ant4 ant6 ant7 bee1 bee2 bee4 bee5 bee7 bee8 wasp0",
        "ant5 bee0 wasp1",
        "ant1 ant3 bee3 bee6 wasp2",
    )
    own_test = {"train": (8, 9, 3), "test": (4, 4, 4)}
    assert written(drawn(own_test, draw=Draw(7, 5, 4))) == (
        "ant5 ant6 bee1 bee7 bee8 wasp0 wasp1",
        "ant0 ant2 bee0 bee2 wasp2",
        "ant1 bee3 wasp1 wasp3",
    )
    assert written(drawn(own_test, draw=Draw(val=4)))[1] == "ant5 bee1 bee8 wasp0"
    shots = "ant0 ant1 bee0 bee5 wasp1 wasp3"
    few: dict[str, Any] = {"shots": 2, "shot_seed": 3}
    with_val = drawn({"train": (6, 6, 6), "val": (5, 5, 5), "test": (1, 1, 1)}, **few)
    assert written(with_val)[:2] == (shots, "ant3 ant4 bee0 bee2 wasp1 wasp2")
    assert written(drawn({"train": (6, 6, 6), "test": (1, 1, 1)}, **few))[:2] == (
        shots,
        "ant2 ant5 bee3 bee4 wasp0 wasp2",
    )


def test_shots_count_an_image_as_often_as_it_is_listed() -> None:
    """A run id does not change with a draw, so a draw does not change either."""
    twice = (*entries("train", (2, 2, 2)), *entries("train", (2, 2, 2)))
    task = Task("bugs", "Natural", "bugs", 0, 0, 0, "folder", "", location="bugs", shots=2, shot_seed=3)
    drawing = draw(task, {"train": twice, "test": entries("test", (1, 1, 1))}, NAMES)
    assert written(drawing)[:2] == ("ant0 ant0 bee0 bee0 wasp1 wasp1", "ant1 ant1 bee1 bee1 wasp0 wasp0")


def test_an_image_that_is_listed_twice_is_not_among_the_shots_and_validated_on() -> None:
    twice = (*entries("train", (4, 4, 4)), *entries("train", (4, 4, 4)))
    task = Task("bugs", "Natural", "bugs", 0, 0, 0, "folder", "", location="bugs", shots=3)
    drawing = draw(task, {"train": twice, "test": entries("test", (1, 1, 1))}, NAMES)
    assert (counts(drawing, "train800"), counts(drawing, "val200")) == ([3, 3, 3], [3, 3, 3])
    assert not set(drawing.splits["train800"]) & set(drawing.splits["val200"])


def test_more_shots_contain_fewer_and_final_trains_on_the_shots_alone() -> None:
    splits = {"train": (20, 20, 20), "test": (2, 2, 2)}
    drawings = {shots: drawn(splits, shots=shots) for shots in (1, 2, 4, 8, 16)}
    for shots, drawing in drawings.items():
        assert counts(drawing, "train") == [shots] * 3
        assert drawing.splits["train"] == drawing.splits["train800"]
        assert counts(drawing, "val200") == [min(shots, 4)] * 3
        assert not set(drawing.splits["train"]) & set(drawing.splits["val200"])
    for fewer, more in ((1, 2), (2, 4), (4, 8), (8, 16)):
        assert set(drawings[fewer].splits["train"]) < set(drawings[more].splits["train"])
        assert set(drawings[fewer].splits["val200"]) <= set(drawings[more].splits["val200"])
    assert drawn(splits, shots=4, shot_seed=1).splits["train"] != drawings[4].splits["train"]


def test_shots_take_val_from_the_validation_images_of_the_source() -> None:
    drawing = drawn({"train": (9, 9, 9), "val": (9, 9, 2), "test": (1, 1, 1)}, shots=8)
    assert counts(drawing, "val200") == [4, 4, 2]
    assert {entry.path.split("/")[0] for entry in drawing.splits["val200"]} == {"val"}


@pytest.mark.parametrize(
    ("splits", "changes", "message"),
    [
        ({"train": (9, 0, 9), "test": (1, 1, 1)}, {}, "no training image of class bee; every class needs some"),
        ({"test": (1, 1, 1)}, {}, "no training image of classes ant, bee, wasp"),
        ({"train": (9, 3, 9), "test": (1, 1, 1)}, {"shots": 4}, r"fewer than 4 training images of class bee \(3\)"),
        ({"train": (9, 9, 9), "test": (1, 1, 1)}, {"draw": Draw(train=28)}, "28 training images, but only 27 are left"),
        ({"train": (9, 9, 9), "test": (1, 1, 1)}, {"draw": Draw(train=2)}, "2 training images of 3 classes"),
        ({"train": (9, 9, 9), "test": (1, 1, 1)}, {"draw": Draw(20, 8)}, "8 validation images, but only 7 are left"),
        ({"train": (9, 9, 9), "test": (1, 1, 1)}, {"draw": Draw(test=4)}, "4 test images, but only 3 are left"),
        ({"train": (1, 1, 1)}, {}, "too few images to hold out a fifth"),
    ],
)
def test_what_cannot_be_drawn_is_refused(splits: Any, changes: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        drawn(splits, **changes)


def test_test_images_are_held_out_of_train_beside_validation_images() -> None:
    held_out = drawn({"train": (10, 10, 10), "val": (3, 3, 3)})
    assert (counts(held_out, "test"), counts(held_out, "val200"), held_out.held_out) == ([2, 2, 2], [3, 3, 3], True)
