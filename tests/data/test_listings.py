"""Tasks from a location: their identity, their splits, leaks, class names, verification and shots."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from shipbench import RunSpec
from shipbench.data import find, identities, listings, load, sources
from shipbench.data.few_shots import FewShotSource
from shipbench.data.framing import resize
from shipbench.data.inspection.contact_sheet import write_contact_sheet
from shipbench.data.inspection.summary import summarise
from shipbench.data.inspection.verify import verify
from shipbench.data.listings import DrawnSource, ListedSource, Listing
from shipbench.data.sources import open_source
from shipbench.data.types import Entry, Finding
from shipbench.errors import InputError
from shipbench.tasks import Task, get_task
from shipbench.tasks.catalogue import Draw, SplitName
from tests.data.builders import vtab_tree
from tests.plug_ins import install
from tests.tasks.pictures import NAMES, image_folder, picture

pytestmark = pytest.mark.usefixtures("private_cache")

FINAL: tuple[SplitName, ...] = ("train", "test")
TUNING: tuple[SplitName, ...] = ("train800", "val200")


class DamagedImages:
    """Reads no image."""

    def read(self, path: str) -> bytes:
        """Return text."""
        return b"text"


@pytest.fixture
def bugs(tmp_path: Path) -> Path:
    return image_folder(tmp_path / "bugs", {"train": (6, 6, 6), "val": (2, 2, 2), "test": (3, 3, 3)})


def task_of(folder: Path, **changes: Any) -> Task:
    return replace(get_task(f"folder:{folder}"), **changes)


def run_id(task: Task, splits: tuple[SplitName, ...] = FINAL, **changes: Any) -> str:
    spec = RunSpec("linear", task, **changes).resolved
    fingerprint = find(spec.task, None, splits).identity.fingerprint
    return spec.run_id(data_fingerprint=fingerprint, backbone_sha256="b", precision="fp32")


def test_sizes_and_class_names_are_known_once_the_source_is_opened(bugs: Path) -> None:
    data = load(task_of(bugs), image_size=8, root=None)
    assert (data.task.num_classes, data.task.n_train, data.task.n_test) == (3, 24, 9)
    assert data.task.class_names == NAMES
    assert (len(data["train"]), len(data["test"]), data.image_format) == (24, 9, "png")
    assert data["train"].labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6 + [0, 0, 1, 1, 2, 2]
    brightest = data["train"].images.reshape(24, -1, 3).mean(axis=1).argmax(axis=1)
    assert brightest.tolist() == data["train"].labels.tolist()


def test_the_id_follows_the_images_and_not_their_place_or_name(bugs: Path, tmp_path: Path) -> None:
    task = task_of(bugs)
    elsewhere = tmp_path / "other" / "copy"
    shutil.copytree(bugs, elsewhere)
    assert run_id(task_of(elsewhere)) == run_id(task)
    for same in ({"name": "wasps", "suite": "zoo"}, {"group": "Field", "metric": "mean-per-class"}):
        assert run_id(replace(task, **same)) == run_id(task)
    different = [
        {"draw": Draw(train=9)},
        {"resize": "crop"},
        {"augment": "flip-crop"},
        {"class_names": ("bee", "ant", "wasp")},
        {"class_names": ("a", "b", "c")},
    ]
    ids = {run_id(task), run_id(task, shots=2), *(run_id(replace(task, **changes)) for changes in different)}
    assert len(ids) == 7
    picture(77, 1).save(elsewhere / "train" / "bee" / "0.png")
    assert run_id(task_of(elsewhere)) not in ids


def test_moving_an_image_to_another_class_changes_the_id(bugs: Path) -> None:
    before = run_id(task_of(bugs))
    (bugs / "train" / "bee" / "0.png").rename(bugs / "train" / "ant" / "bee.png")
    assert run_id(task_of(bugs)) != before


def test_an_image_with_another_role_changes_the_id(bugs: Path) -> None:
    ids = [
        run_id(task_of(bugs, options=f'{{"splits": {splits}}}'))
        for splits in (
            '{"train": "train", "val": "val", "test": "test"}',
            '{"train": ["train", "val"], "test": "test"}',
            '{"train": "train", "test": ["val", "test"]}',
        )
    ]
    assert len(set(ids)) == 3


def test_the_ways_to_make_squares_share_no_pixels(bugs: Path) -> None:
    first = Image.open(bugs / "test" / "ant" / "0.png")
    for how in ("squash", "crop"):
        images = load(task_of(bugs, resize=how), image_size=8, root=None, splits=("test",))["test"].images
        assert np.array_equal(images[0], resize(first, 8, how))


def test_tuning_opens_no_test_image(bugs: Path) -> None:
    before = find(task_of(bugs), None, TUNING).identity.fingerprint
    for file in (bugs / "test").rglob("*.png"):
        file.write_bytes(b"not an image, and never read")
    data = load(task_of(bugs), image_size=8, root=None, splits=TUNING)
    assert (len(data["train800"]), len(data["val200"])) == (18, 6)
    assert data.fingerprint == before


def test_tuning_opens_no_held_out_image(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "flat", {"": (10, 10, 10)})
    source = open_source(task_of(folder), None, FINAL)
    assert "a fifth of each class is held out (6 images)" in source.warning
    assert isinstance(source, DrawnSource)
    for entry in source.drawing.splits["test"]:
        (folder / entry.path).write_text(f"not an image, and never read: {entry.path}")
    assert len(load(task_of(folder), image_size=8, root=None, splits=TUNING)["val200"]) == 6
    with pytest.raises(InputError, match="is not an image"):
        load(task_of(folder), image_size=8, root=None, splits=FINAL)


def test_classes_without_a_held_out_image_are_named(tmp_path: Path) -> None:
    one = open_source(task_of(image_folder(tmp_path / "one", {"": (10, 1, 2)})), None, FINAL)
    assert one.warning.endswith("held out (3 images); one: 1 class of one image has none to test on: bee")
    two = open_source(task_of(image_folder(tmp_path / "two", {"": (1, 1, 2)})), None, FINAL)
    assert two.warning.endswith("held out (1 image); two: 2 classes of one image have none to test on: ant, bee")


def test_an_image_in_train_and_test_is_refused_unless_leaks_are_allowed(bugs: Path) -> None:
    shutil.copy(bugs / "train" / "bee" / "0.png", bugs / "test" / "bee" / "again.png")
    with pytest.raises(InputError, match=r"1 test image of task bugs is also a training image.* allow_leaks = true"):
        find(task_of(bugs), None, FINAL)
    find(task_of(bugs), None, TUNING)
    assert len(load(task_of(bugs, allow_leaks=True), image_size=8, root=None)["test"]) == 10
    (report,) = verify(None, tasks=[task_of(bugs)])
    assert len(report.problems) == 1
    assert "1 of 10 test images" in report.problems[0]


def test_verify_names_the_folder_of_the_images_of_a_list(bugs: Path, tmp_path: Path) -> None:
    paths = sorted(path.relative_to(bugs) for path in bugs.rglob("*.png"))
    text = "image,label,split\n" + "".join(f"{path},{path.parts[1]},{path.parts[0]}\n" for path in paths)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "all.csv").write_text(text)
    (report,) = verify(None, tasks=[get_task(f"csv:{tmp_path}/lists/all.csv:{bugs}")])
    assert (report.folder, report.counts) == (bugs, {"train": 18, "val": 6, "test": 9})


def test_an_image_of_a_file_that_holds_many_is_named(tmp_path: Path) -> None:
    listing = Listing(("a", "b"), {}, DamagedImages(), signatures={"train/00000007": tmp_path / "all.parquet"})
    with pytest.raises(InputError, match=r"^train/00000007 in .*all\.parquet is not an image"):
        listing.picture("train/00000007")


@pytest.mark.parametrize(("first", "second"), [("train", "val"), ("train", "test"), ("val", "test")])
def test_an_image_that_two_splits_list_is_refused_unless_leaks_are_allowed(bugs: Path, first: str, second: str) -> None:
    paths = sorted(path.relative_to(bugs) for path in bugs.rglob("*.png"))
    rows = [f"{path},{path.parts[1]},{path.parts[0]}" for path in paths]
    again = [f"{first}/{kind}/0.png,{kind},{second}" for kind in ("ant", "bee")]
    (bugs / "all.csv").write_text("\n".join(["image,label,split", *rows, *again]))
    task = get_task(f"csv:{bugs}/all.csv")
    images = rf"{first}/ant/0\.png, {first}/bee/0\.png"
    for splits in (FINAL, TUNING):
        with pytest.raises(InputError, match=rf"2 images of task .* listed in {first} and in {second} \({images}\)"):
            find(task, None, splits)
        assert find(replace(task, allow_leaks=True), None, splits).counts
    (report,) = verify(None, tasks=[task])
    assert len(report.problems) == 1
    assert not report.warnings
    listed = [finding for finding in report.findings if finding.kind == f"{second} and {first}"]
    assert [finding.image for finding in listed] == [str(bugs / first / kind / "0.png") for kind in ("ant", "bee")]


def test_an_image_in_val_and_test_is_refused_with_shots_too(bugs: Path) -> None:
    shutil.copy(bugs / "val" / "bee" / "0.png", bugs / "test" / "bee" / "again.png")
    for shots in (0, 1):
        with pytest.raises(InputError, match=r"again\.png is val/bee/0\.png"):
            find(task_of(bugs, shots=shots), None, FINAL)


def test_an_image_in_two_classes_is_refused(bugs: Path) -> None:
    shutil.copy(bugs / "train" / "bee" / "0.png", bugs / "train" / "ant" / "bee.png")
    with pytest.raises(InputError, match=r"in two classes: train/ant/bee.png is ant, train/bee/0.png is bee"):
        find(task_of(bugs), None, TUNING)
    (report,) = verify(None, tasks=[task_of(bugs)])
    assert report.problems == (
        "one image is in two classes, byte for byte: ant (train/ant/bee.png) and bee (train/bee/0.png)",
    )


def test_classes_may_be_renumbered_and_renamed(bugs: Path) -> None:
    turned = load(task_of(bugs, class_names=("wasp", "ant", "bee")), image_size=8, root=None)
    assert turned["train"].labels.tolist()[:18] == [1] * 6 + [2] * 6 + [0] * 6
    renamed = load(task_of(bugs, class_names=("Ameise", "Biene", "Wespe")), image_size=8, root=None)
    assert renamed["train"].labels.tolist()[:18] == [0] * 6 + [1] * 6 + [2] * 6
    assert renamed.task.class_names == ("Ameise", "Biene", "Wespe")
    for names, message in ((("ant", "bee"), "names 2 classes"), (("ant", "bee", "fly"), "class 'fly' of task bugs")):
        with pytest.raises(InputError, match=message):
            open_source(task_of(bugs, class_names=names), None, FINAL)


@pytest.mark.parametrize("prefix", ["", "class "])
def test_a_note_says_which_numbers_get_the_names_that_a_task_file_lists(tmp_path: Path, prefix: str) -> None:
    numbers = [f"{prefix}{number}" for number in (1, 2, 3, 10)]
    task = task_of(image_folder(tmp_path / "bugs", {"train": (2,) * 4, "test": (1,) * 4}, numbers))
    insects = ("ant", "bee", "fly", "wasp")
    source = open_source(replace(task, class_names=insects), None, FINAL)
    order = ", ".join(f"{prefix}{number}" for number in (1, 10, 2, 3))
    assert source.warning == (
        f"bugs: classes names the classes in the order of text ({order}), so {prefix}10 is called 'bee'"
    )
    assert sources.completed(task, source).class_names == insects
    assert not open_source(replace(task, class_names=tuple(numbers)), None, FINAL).warning


def test_numbers_whose_order_is_that_of_text_need_no_note(tmp_path: Path) -> None:
    padded = image_folder(tmp_path / "bugs", {"train": (2,) * 3, "test": (1,) * 3}, ("02", "09", "10"))
    assert not open_source(task_of(padded, class_names=("ant", "bee", "fly")), None, FINAL).warning
    lines = [f"bugs/train/{name}/{number}.png,{int(name)}" for name in ("02", "09", "10") for number in (0, 1)]
    (tmp_path / "table.csv").write_text("\n".join(["image,label", *lines]))
    table = replace(get_task(f"csv:{tmp_path / 'table.csv'}"), class_names=("ant", "bee", "fly"))
    assert "order of text" not in open_source(table, None, FINAL).warning


def test_a_source_is_verified_summarised_and_drawn(bugs: Path, tmp_path: Path) -> None:
    (bugs / "val" / "wasp" / "0.png").write_bytes((bugs / "val" / "wasp" / "0.png").read_bytes()[:60])
    shutil.copy(bugs / "train" / "bee" / "0.png", bugs / "val" / "bee" / "again.png")
    (report,) = verify(None, tasks=[task_of(bugs)])
    assert report.counts == {"train": 18, "val": 7, "test": 9}
    assert (report.classes_seen, report.smallest, report.folder) == (3, (20, 14), bugs)
    assert len(report.problems) == 1
    assert "wasp/0.png cannot be decoded" in report.problems[0]
    assert report.warnings == ("val image val/bee/again.png is also train image train/bee/0.png, byte for byte",)
    assert report.findings == (
        Finding("broken", str(bugs / "val/wasp/0.png")),
        Finding("val and train", str(bugs / "val/bee/again.png"), str(bugs / "train/bee/0.png")),
    )
    picture(1, 2).save(bugs / "val" / "wasp" / "0.png")
    summary = summarise(task_of(bugs), None)
    assert summary.task.class_names == NAMES
    assert summary.counts["train800"].tolist() == [6, 6, 6]
    write_contact_sheet(task_of(bugs), None, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").is_file()


def test_shots_share_the_test_images_of_the_cache(bugs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(task_of(bugs, shots=1), image_size=8, root=None)
    two = load(task_of(bugs, shots=2), image_size=8, root=None)
    assert two["train"].labels.tolist() == [0, 0, 1, 1, 2, 2]
    other = load(task_of(bugs, shots=2, shot_seed=1), image_size=8, root=None)
    assert other.content("train") != two.content("train")
    assert not np.array_equal(other["train"].images, two["train"].images)
    assert other.content("test") == two.content("test")
    monkeypatch.setattr(listings, "decode_photograph", None)
    load(task_of(bugs, shots=1), image_size=8, root=None)


def test_nothing_to_validate_on_is_refused_where_settings_are_chosen(tmp_path: Path) -> None:
    task = task_of(image_folder(tmp_path / "few", {"train": (3, 3, 3), "test": (1, 1, 1)}), shots=3)
    with pytest.raises(InputError, match=r"task few has no image left to validate on, .* ask for fewer shots"):
        find(task, None, TUNING)
    assert len(load(task, image_size=8, root=None)["train"].labels) == 9
    drawn = replace(task, shots=0, draw=Draw(train=3))
    with pytest.raises(InputError, match="draw fewer training images"):
        load(drawn, image_size=8, root=None, splits=TUNING)


def test_catalogued_tasks_have_shots_too(tmp_path: Path) -> None:
    task = replace(get_task("demo-tiny"), shots=2)
    one, two = (load(replace(task, shots=shots), image_size=8, root=None) for shots in (1, 2))
    assert np.bincount(two["train"].labels).tolist() == [2] * 4
    images = [set(map(bytes, data["train"].images)) for data in (one, two)]
    assert images[0] < images[1]
    other = load(replace(task, shot_seed=1), image_size=8, root=None)
    assert set(map(bytes, other["train"].images)) != images[1]
    assert other.content("train") != two.content("train")
    assert one.fingerprint == load(get_task("demo-tiny"), image_size=8, root=None).fingerprint
    assert len(load(task, image_size=8, root=None, splits=TUNING)["val200"]) == 8
    with pytest.raises(InputError, match=r"fewer than 200 training images of classes 0 \(\d+\), 1"):
        load(replace(task, shots=200), image_size=8, root=None)


def test_a_tuning_with_shots_opens_no_test_file_of_vtab(tmp_path: Path) -> None:
    root = vtab_tree(tmp_path / "vtab", tasks=("patch_camelyon",), n_train=20)
    task = get_task("patch_camelyon")
    (root / "patch_camelyon" / "test.txt").unlink()
    few = load(replace(task, shots=1), image_size=8, root=root, splits=TUNING)
    assert [sorted(few[name].labels) for name in TUNING] == [[0, 1], [0, 1]]
    assert few.fingerprint == find(task, root, TUNING).identity.fingerprint
    with pytest.raises(InputError, match=r"test\.txt is missing"):
        load(replace(task, shots=1), image_size=8, root=root)
    source = open_source(replace(task, shots=3, shot_seed=1), root, TUNING)
    assert isinstance(source, FewShotSource)
    # A run id does not change with a draw.
    assert source.drawn["train800"].tolist() == [2, 3, 5, 10, 12, 13]


@dataclass(frozen=True)
class ArrayImages:
    """Decoded images from one file; counts what it reads."""

    file: Path
    reads: ClassVar[list[str]] = []

    def read(self, path: str) -> Image.Image:
        self.reads.append(path)
        return Image.fromarray(np.load(self.file)[int(path)])


class ArrayFile(ListedSource):
    """A format of another package: grey images in one array, of which image i has class i % 2."""

    def list(self, location: str, base: Path, options: Mapping[str, Any]) -> Listing:
        file = base / location
        if set(options) - {"offset"}:
            raise InputError("an array file knows no option but offset")
        count = len(np.load(file))
        entries = tuple(Entry(str(index), (index + options.get("offset", 0)) % 2) for index in range(count))
        signatures = dict.fromkeys(map(str, range(count)), file)
        return Listing(("even", "odd"), {"train": entries}, ArrayImages(file), signatures=signatures)


def test_a_format_of_another_package_is_one_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("array", "tests.data.test_listings:ArrayFile", sources.GROUP)
    install(monkeypatch, point)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 6, 6)).astype(np.uint8)
    np.save(tmp_path / "images.npy", pixels)
    os.utime(tmp_path / "images.npy", (1, 1))
    task = get_task(f"array:{tmp_path / 'images.npy'}")
    monkeypatch.setattr(identities, "TICK_NS", 0)
    data = load(task, image_size=6, root=None)
    assert (data.task.class_names, data.image_format, len(data["test"])) == (("even", "odd"), "array", 4)
    assert all((image == image[..., :1]).all() for image in data["train"].images)
    ArrayImages.reads.clear()
    assert load(task, image_size=6, root=None).fingerprint == data.fingerprint
    assert not ArrayImages.reads
    turned = replace(task, options='{"offset": 1}')
    assert find(turned, None, FINAL).identity.fingerprint != data.fingerprint
    with pytest.raises(InputError, match="no option but offset"):
        find(replace(task, options='{"ofset": 1}'), None, FINAL)
    np.save(tmp_path / "images.npy", pixels[::-1])
    assert find(task, None, FINAL).identity.fingerprint != data.fingerprint
    (report,) = verify(None, tasks=[task])
    assert report.ok
