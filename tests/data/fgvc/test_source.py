"""FGVC: VPT's JSON files, the official label files, the draw of val, and copies that are not whole."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from shipbench.data.fgvc.source import LAYOUTS, FgvcSuite, draw_val
from shipbench.data.formats.labels import Rows
from shipbench.data.inspection import verify
from shipbench.data.listings import Listing
from shipbench.errors import InputError
from shipbench.tasks import get_task, parse_tasks
from tests.conftest import Outcome
from tests.data.builders import small_task, vtab_tree
from tests.data.fgvc.builders import birds, cars, cars_devkit, dogs, flowers
from tests.data.formats.samples import samples
from tests.data.formats.trees import labels, sizes, tree


def read(name: str, root: Path) -> Listing:
    return FgvcSuite().listing(get_task(name), root)


def write(folder: Path, **files: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def test_the_suite_has_five_tasks_of_vpt_s_sizes() -> None:
    tasks = parse_tasks("fgvc")
    assert [task.name for task in tasks] == list(LAYOUTS)
    facts = {task.name: (task.num_classes, task.n_train - LAYOUTS[task.name].n_val, task.n_test) for task in tasks}
    assert facts == {
        "cub-200-2011": (200, 5394, 5794),
        "nabirds": (555, 21536, 24633),
        "oxford-flowers": (102, 1020, 6149),
        "stanford-dogs": (120, 10800, 8580),
        "stanford-cars": (196, 7329, 8041),
    }
    assert {(task.resize, task.augment) for task in tasks} == {("crop", "flip-crop")}


@pytest.mark.parametrize(
    ("name", "facts"),
    [("cub-200-2011", (2, 4, 2, 2)), ("nabirds", (3, 6, 3, 3)), ("stanford-cars", (2, 4, 2, 2))],
)
def test_samples_with_json_files(name: str, facts: tuple[int, ...]) -> None:
    listing = read(name, samples() / "fgvc")
    assert (len(listing.classes), *sizes(listing).values()) == facts
    assert listing.notes[0].startswith(f"this copy has {facts[1]} train images instead of")


def test_a_broken_sample_names_everything_that_is_wrong() -> None:
    with pytest.raises(InputError) as caught:
        read("oxford-flowers", samples() / "fgvc_broken")
    message = str(caught.value)
    assert "1 image is in train and in test (jpg/image_00001.jpg)" in message
    assert "1 image of 7 is missing (jpg/image_00007.jpg)" in message
    assert "val lacks the class ids 1" in message


def test_a_class_that_val_lacks_keeps_its_number(tmp_path: Path) -> None:
    tree(tmp_path / "OxfordFlower" / "jpg", *(f"{number}.jpg" for number in range(6)))
    train = {f"jpg/{number}.jpg": number for number in range(3)}
    write(tmp_path / "OxfordFlower", train=train, val={"jpg/3.jpg": 0, "jpg/4.jpg": 2}, test={"jpg/5.jpg": 1})
    assert [entry.label for entry in read("oxford-flowers", tmp_path).splits["val"]] == [0, 2]


def test_splits_that_number_their_classes_differently_are_refused(tmp_path: Path) -> None:
    birds(tmp_path / "nabirds")
    train, test = (
        {f"{name}/{name}_{number}.jpg": label for label, name in enumerate(names) for number in numbers}
        for names, numbers in (
            (("001.Grey_Bird", "002.Tiny_Finch"), range(6)),
            (("002.Tiny_Finch", "001.Grey_Bird"), range(6, 9)),
        )
    )
    write(tmp_path / "nabirds", train=train, val={}, test=test)
    with pytest.raises(InputError, match=r"images in '002\.Tiny_Finch' have the label 1 in train and 0 in test"):
        read("nabirds", tmp_path)


@pytest.mark.parametrize(
    ("name", "build", "facts", "classes"),
    [
        ("cub-200-2011", birds, {"train": 18, "val": 2, "test": 4}, ("001.Grey_Bird", "002.Tiny_Finch")),
        ("nabirds", birds, {"train": 18, "val": 2, "test": 4}, ("001.Grey_Bird", "002.Tiny_Finch")),
        ("oxford-flowers", flowers, {"train": 17, "val": 3, "test": 4}, ("1", "2")),
        (
            "stanford-dogs",
            dogs,
            {"train": 18, "val": 2, "test": 4},
            ("n02085620-Chihuahua", "n02085782-Japanese_spaniel"),
        ),
        (
            "stanford-cars",
            cars,
            {"train": 18, "val": 2, "test": 4},
            ("AM General Hummer SUV 2000", "Acura RL Sedan 2012"),
        ),
        ("stanford-cars", cars_devkit, {"train": 18, "val": 2, "test": 4}, ("1", "2")),
    ],
)
def test_official_files_are_read_and_val_is_drawn(
    tmp_path: Path, name: str, build: Callable[[Path], Path], facts: dict[str, int], classes: tuple[str, ...]
) -> None:
    folder = build(tmp_path / "copies" / get_task(name).folder_names[1])
    listing = read(name, tmp_path)
    assert (sizes(listing), listing.classes) == (facts, classes)
    assert "come from its official files" in listing.notes[0]
    assert any("drawn from train" in note for note in listing.notes) == (name != "oxford-flowers")
    for entries in listing.splits.values():
        assert all((folder / entry.path).is_file() for entry in entries)
        assert len({entry.label for entry in entries}) == 2
    assert read(name, folder).splits == listing.splits


def test_json_and_official_files_name_images_alike(tmp_path: Path) -> None:
    folder = birds(tmp_path / "CUB_200_2011")
    official = labels(read("cub-200-2011", tmp_path))
    splits = {
        role: {path.removeprefix("images/"): int(name[:3]) for path, name in split} for role, split in official.items()
    }
    write(folder, **splits)
    assert labels(read("cub-200-2011", tmp_path)) == official


def test_val_is_drawn_alike_from_every_class_and_always_the_same() -> None:
    train: Rows = [
        (f"{label}/{number}.jpg", label) for label, size in ((1, 30), (2, 21), (3, 10)) for number in range(size)
    ]
    fit, val = draw_val(train, 6)
    assert Counter(label for _, label in val) == {1: 3, 2: 2, 3: 1}
    assert sorted([*fit, *val]) == sorted(train)
    assert draw_val(train, 6) == (fit, val)
    assert [path for path, _ in val] == ["1/5.jpg", "1/16.jpg", "1/19.jpg", "2/5.jpg", "2/16.jpg", "3/3.jpg"]


def test_json_without_val_gets_a_draw(tmp_path: Path) -> None:
    tree(tmp_path / "StanfordCars" / "car_ims", *(f"{number:06d}.jpg" for number in range(24)))
    train = {f"{number:06d}.jpg": number % 2 for number in range(20)}
    write(
        tmp_path / "StanfordCars",
        train=train,
        test={f"car_ims/{number:06d}.jpg": number % 2 for number in range(20, 24)},
    )
    listing = read("stanford-cars", tmp_path)
    assert sizes(listing) == {"train": 18, "val": 2, "test": 4}
    assert all(entry.path.startswith("car_ims/") for entry in listing.splits["train"])


def test_images_of_the_devkit_never_stand_in_for_car_ims(tmp_path: Path) -> None:
    folder = cars_devkit(tmp_path / "StanfordCars")
    write(folder, train={"00001.jpg": 0, "00002.jpg": 1}, test={"00003.jpg": 0})
    with pytest.raises(
        InputError, match=r"3 images of 3 are missing \(car_ims/00001\.jpg, .*cannot stand in for car_ims"
    ):
        read("stanford-cars", tmp_path)


def test_a_folder_without_labels_says_which_files_it_needs(tmp_path: Path) -> None:
    (tmp_path / "StanfordCars").mkdir()
    with pytest.raises(
        InputError, match=r"no labels of stanford-cars; it needs train\.json and .* or cars_annos\.mat or"
    ):
        read("stanford-cars", tmp_path)


def test_missing_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="FGVC tasks are read from a folder; pass --data DIR"):
        FgvcSuite().listing(get_task("nabirds"), None)
    with pytest.raises(InputError, match="has no folder called nabirds"):
        read("nabirds", tmp_path)
    with pytest.raises(InputError, match="FGVC has no data set 'cats'"):
        FgvcSuite().list("cats", tmp_path, {})


def test_a_damaged_label_file_is_one_sentence(tmp_path: Path) -> None:
    folder = flowers(tmp_path / "OxfordFlower")
    (folder / "setid.mat").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"setid\.mat is not a MATLAB file that can be read"):
        read("oxford-flowers", tmp_path)


def test_a_folder_of_fgvc_is_verified(tmp_path: Path, cache: Path, shipbench: Callable[..., Outcome]) -> None:
    birds(tmp_path / "data" / "nabirds")
    cars(tmp_path / "data" / "StanfordCars")
    outcome = shipbench("data", "verify", tmp_path / "data")
    assert outcome.code == 0
    assert "all 2 tasks are in order" in outcome.out
    assert "this copy has 18 train images instead of 21536" in outcome.out
    assert f"--tasks nabirds,stanford-cars --data {tmp_path / 'data'}" in outcome.err


def test_vtab_beside_fgvc_is_verified_too(
    tmp_path: Path, cache: Path, shipbench: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    cars(tmp_path / "data" / "fgvc" / "StanfordCars")
    vtab_tree(tmp_path / "data" / "vtab-1k", tasks=("dtd",))
    monkeypatch.setattr(verify, "verify", partial(verify.verify, tasks=[small_task("dtd")]))
    outcome = shipbench("data", "verify", tmp_path / "data")
    assert outcome.code == 0, outcome.out
    assert "train800" in outcome.out
    assert "all 2 tasks are in order" in outcome.out
    assert f"--tasks all,stanford-cars --data {tmp_path / 'data'}" in outcome.err
    inspected = shipbench("data", "inspect", "stanford-cars", "--data", tmp_path / "data")
    assert "train + val" in inspected.out
    assert "train800" not in inspected.out


def test_verifying_reports_a_broken_data_set_beside_the_others(
    tmp_path: Path, cache: Path, shipbench: Callable[..., Outcome]
) -> None:
    birds(tmp_path / "data" / "nabirds")
    folder = cars(tmp_path / "data" / "StanfordCars")
    (folder / "car_ims" / "000003.jpg").unlink()
    outcome = shipbench("data", "verify", tmp_path / "data")
    assert outcome.code == 1
    assert "problem: stanford-cars: " in outcome.out
    assert "1 image of 24 is missing (car_ims/000003.jpg)" in outcome.out
    assert "1 of 2 tasks has problems" in outcome.out


def test_the_same_image_in_train_and_test_is_a_problem_of_the_copy_but_does_not_stop_a_run(
    tmp_path: Path, cache: Path, shipbench: Callable[..., Outcome]
) -> None:
    folder = cars(tmp_path / "data" / "StanfordCars")
    (folder / "car_ims" / "000024.jpg").write_bytes((folder / "car_ims" / "000002.jpg").read_bytes())
    verified = shipbench("data", "verify", tmp_path / "data")
    assert (verified.code, "byte for byte" in verified.out) == (1, True)
    options = ("--tasks", "stanford-cars", "--data", tmp_path / "data", "--checkpoint", "random", "--dry-run")
    assert shipbench("run", "--method", "linear", *options).code == 0


def test_published_settings_are_refused_by_name(tmp_path: Path, cache: Path, shipbench: Callable[..., Outcome]) -> None:
    cars(tmp_path / "StanfordCars")
    options = ("--tasks", "stanford-cars", "--data", tmp_path, "--checkpoint", "random", "--recipe", "published")
    for method, name in (("ship", "SHIP"), ("vpt-deep", "vpt-deep")):
        outcome = shipbench("run", "--method", method, *options, "--dry-run")
        assert outcome.code == 2
        assert f"{name} has no published settings" in outcome.err
