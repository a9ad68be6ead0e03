"""``hf:NAME[:CONFIG]``: labels, cards and configurations of local data sets, and names on the hub."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shipbench.data.formats import hub_download
from shipbench.data.formats.hub_dataset import HubDataset
from shipbench.data.listings import numbered
from shipbench.errors import InputError
from shipbench.tasks import get_task
from tests.data.formats.hub_tables import Names, parquet, pictures, read, shard
from tests.data.formats.trees import picture, sizes
from tests.hub import DATA_SET, REPO, Hub, serve


@pytest.mark.parametrize("column", ["label", "labels", "fine_label", "class", "target"])
def test_without_a_description_the_label_is_the_integer_column(tmp_path: Path, column: str) -> None:
    parquet(tmp_path / "train.parquet", **{"size": [5, 6, 7], column: [4, 2, 4]})
    listing = read(tmp_path)
    assert listing.classes == ("2", "4")
    assert "from 2 to 4, are numbered 0 to 1" in listing.notes[0]


@pytest.mark.parametrize(
    ("values", "classes"),
    [([10.0, 2.0, None, float("nan"), 10.0], ("2", "10")), ([True, False, True], ("False", "True"))],
)
def test_labels_may_be_whole_numbers_with_a_point_or_switches(
    tmp_path: Path, values: list[Any], classes: tuple[str, ...]
) -> None:
    parquet(tmp_path / "train.parquet", label=values)
    listing = read(tmp_path)
    assert (listing.classes, sizes(listing)) == (classes, {"train": 3})


@pytest.mark.parametrize("pattern", ["/elsewhere/*.parquet", "../other/*.parquet", "x/**.parquet"])
def test_patterns_of_a_card_stay_in_the_folder(tmp_path: Path, pattern: str) -> None:
    parquet(tmp_path / "other" / "x.parquet", label=[0, 1, 0, 1])
    parquet(tmp_path / "bugs" / "train.parquet", label=[0, 1])
    (tmp_path / "bugs" / "README.md").write_text(f"---\nconfigs:\n- data_files: '{pattern}'\n---\n")
    assert sizes(read(tmp_path / "bugs")) == {"train": 2}


def test_unlabelled_images_and_splits_are_left_out(tmp_path: Path) -> None:
    names = {"label": ["ant", "bee"]}
    shard(tmp_path, "train", [0, 1, -1], names)
    shard(tmp_path, "test", [-1, -1], names)
    listing = read(tmp_path)
    assert sizes(listing) == {"train": 2}
    assert [note.split(" in ")[0] for note in listing.notes] == ["test", "left out 1 image of train"]


def test_names_without_images_are_left_out(tmp_path: Path) -> None:
    shard(tmp_path, "train", [0, 2], {"label": ["ant", "bee", "wasp"]})
    listing = read(tmp_path)
    assert listing.classes == ("ant", "wasp")
    assert listing.notes == (f"1 class of {tmp_path} without any image left out: bee",)


def test_several_configurations_ask_for_one(tmp_path: Path) -> None:
    shard(tmp_path / "large", "train", [0, 1, 1])
    shard(tmp_path / "small", "train", [0, 1])
    with pytest.raises(InputError, match=r"several configurations \(large, small\); name one, as in hf:.*:large"):
        read(tmp_path)
    assert sizes(read(tmp_path, config="small")) == {"train": 2}
    assert sizes(HubDataset().list(f"{tmp_path}:large", Path("/"), {})) == {"train": 3}
    with pytest.raises(InputError, match=r"has no configuration 'tiny'; it has large, small"):
        read(tmp_path, config="tiny")


def test_the_card_lists_files_and_class_names(tmp_path: Path) -> None:
    parquet(tmp_path / "x" / "one.parquet", label=[0, 1])
    parquet(tmp_path / "y" / "two.parquet", label=[1, 0, 1])
    (tmp_path / "README.md").write_text("""---
configs:
- config_name: default
  data_files:
  - split: train
    path: y/*
  - split: test
    path: [x/one.parquet]
dataset_info:
  features:
  - name: image
    dtype: image
  - name: label
    dtype: {class_label: {names: {'0': ant, '1': bee}}}
---
# Bugs
""")
    # A pattern of the card fits what a Mac keeps beside a file, too.
    (tmp_path / "y" / "._two.parquet").write_bytes(b"\x00\x05\x16\x07")
    listing = read(tmp_path)
    assert (listing.classes, sizes(listing)) == (("ant", "bee"), {"train": 3, "test": 2})


@pytest.mark.parametrize(
    ("columns", "names", "options", "message"),
    [
        ({"label": [0, 1], "class": [0, 1]}, None, {}, r"several columns .* label \(label, class\)"),
        ({"a": [0, 1], "b": [0, 1]}, {"a": "xy", "b": "xy"}, {}, r"label \(a, b\); .* label_column = \"a\""),
        ({"species": [0, 1]}, None, {}, r"no column for the label \(its columns are image, species\)"),
        ({"label": [[0], [1]]}, None, {"label_column": "label"}, r"holds '\[0\]', not one integer or text per image"),
        ({"label": [0, 1]}, None, {"label_column": "kind"}, r"no column 'kind' \(label_column\)"),
        ({"label": [-1, -1]}, None, {}, r"has no train split"),
        ({"label": [0, 0]}, None, {}, r"the single class '0'"),
    ],
)
def test_what_the_columns_do_not_decide_is_refused(
    tmp_path: Path, columns: dict[str, Any], names: Names | None, options: dict[str, Any], message: str
) -> None:
    parquet(tmp_path / "train.parquet", names, **columns)
    with pytest.raises(InputError, match=message):
        read(tmp_path, **options)


def test_a_saved_data_set_is_read_from_its_arrow_files(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["ant", "bee"]))
    splits = {
        split: datasets.Dataset.from_dict({"image": pictures(values, split), "label": values}, features=features)
        for split, values in {"train": [0, 1, 1], "test": [1, 0]}.items()
    }
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "all")
    splits["train"].save_to_disk(tmp_path / "one")
    listing = read(tmp_path / "all")
    assert (listing.classes, sizes(listing)) == (("ant", "bee"), {"train": 3, "test": 2})
    assert listing.images.read(listing.splits["test"][0].path) == picture("test0")
    assert {file.parent.name for file in listing.signatures.values()} == {"train", "test"}
    assert sizes(read(tmp_path / "one")) == {"train": 3}


def test_labels_of_a_table_that_are_no_classes_are_refused(tmp_path: Path) -> None:
    shard(tmp_path, "train", ["cat", "dog", "cat|dog"])
    task = get_task(f"hf:{tmp_path}")
    listing = HubDataset().listing(task, None)
    with pytest.raises(InputError, match=r"has the label 'cat\|dog', a list of labels"):
        numbered(task, listing)
    named = replace(task, class_names=("dog", "cat|dog", "cat"))
    assert numbered(named, listing).classes == named.class_names


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 6)
)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            f"{BOMB}dataset_info:\n  features:\n  - name: label\n    dtype: {{class_label: {{names: *a5}}}}\n",
            "aliases stand",
        ),
        ("a: &a {x: 1}\nb: &b {<<: [*a, *a], y: *b}\n", "aliases stand for more than 500000 values"),
        ("[" * 5000, "nested too deeply"),
        ("date: 2023-99-99\n", "one of its values cannot be read"),
    ],
)
def test_a_card_does_not_fill_the_memory(tmp_path: Path, header: str, message: str) -> None:
    shard(tmp_path / "data", "train", [0, 1])
    (tmp_path / "README.md").write_text(f"---\n{header}---\n")
    with pytest.raises(
        InputError, match=rf"begins with a header that is not YAML: .*{message}.*; correct it or remove it"
    ):
        read(tmp_path)


def test_a_card_of_odd_values_means_nothing(tmp_path: Path) -> None:
    shard(tmp_path / "data", "train", [0, 1])
    (tmp_path / "README.md").write_text("---\nconfigs: {default: x}\ndataset_info: [x, {features: [y]}]\n---\n")
    assert read(tmp_path).classes == ("0", "1")


def test_a_missing_path_is_not_looked_up_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere does not exist; name a folder, or a data set as in hf:OWNER/NAME"):
        read(tmp_path / "nowhere")
    for name in ("bugs.parquet", "data/bugs.tar.GZ", "bugs.zip"):
        with pytest.raises(InputError, match=rf"hf:{name}: {tmp_path}/{name} does not exist; name a folder, or a data"):
            HubDataset().list(name, tmp_path, {})


def test_without_the_library_a_name_may_be_a_mistyped_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"hf:data/bugz is not a folder or file here, and .* which is not installed"):
        HubDataset().list("data/bugz", tmp_path, {})


CODE = """
import sys
from pathlib import Path
from shipbench.data.formats.hub_dataset import HubDataset
from shipbench.errors import InputError
from shipbench.runtime.console import discard, redirected
for name in sys.argv[1:]:
    try:
        with redirected(discard):
            listing = HubDataset().list(name, Path("/"), {})
        image = listing.images.read(listing.splits["test"][0].path)
        sizes = [len(split) for split in listing.splits.values()]
        print(listing.classes, sizes, len(image), len(listing.signatures))
    except InputError as error:
        print(error)
"""


# The hub's library waits 23 s in all between its attempts; no setting of it shortens that.
WITHOUT_WAITING = f"import time\ntime.sleep = lambda seconds: None\n{CODE}"


def look_up(tmp_path: Path, address: str, *names: str, code: str = CODE) -> list[str]:
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    environment |= {"NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    process = subprocess.run(
        [sys.executable, "-c", code, *names], env=environment, capture_output=True, text=True, check=True
    )
    # Neither bars nor warnings of the libraries, because the lines are discarded.
    assert process.stderr == ""
    return process.stdout.splitlines()


def test_names_on_the_hub_are_downloaded_or_refused_in_one_sentence(tmp_path: Path) -> None:
    files = {}
    for split in ("train", "test"):
        stream = io.BytesIO(shard(tmp_path / "data", split, [0, 1], {"label": ["ant", "bee"]}).read_bytes())
        files[f"data/{split}-00000-of-00001.parquet"] = stream.getvalue()
    with serve(Hub({DATA_SET: files}, gated="locked/bugs")) as hub:
        lines = look_up(tmp_path, hub.address, REPO, f"{REPO}:other", "no/such", "locked/bugs")
    size = len(picture("test-00000-of-000010"))
    assert lines == [
        f"('ant', 'bee') [2, 2] {size} 4",
        f"{REPO} has no configuration 'other'; it has default",
        "hf:no/such is not a folder or file here, and does not exist on the hub or is private; check the name, or set "
        "HF_TOKEN if it is yours",
        "hf:locked/bugs needs a licence: accept it at huggingface.co/datasets/locked/bugs, then set HF_TOKEN or run "
        "'hf auth login'",
    ]


def test_a_hub_that_cannot_be_reached_is_one_sentence(tmp_path: Path) -> None:
    (line,) = look_up(tmp_path, "http://127.0.0.1:9", "someone/else", code=WITHOUT_WAITING)
    assert line.startswith("hf:someone/else cannot be read from the hub: ")
    assert line.endswith("; check the name, which no folder or file here has, and the network, or name a local copy")


@pytest.mark.parametrize(
    ("name", "message", "words"),
    [
        (
            "me/aggregated-leaves",
            "Dataset 'me/aggregated-leaves' doesn't exist on the Hub",
            "is not a folder or file here, and does not exist on the hub",
        ),
        ("me/leaves", "Dataset 'me/leaves' is a gated dataset on the Hub", "needs a licence"),
        ("me/leaves", "Revision 'v2' doesn't exist for dataset 'me/leaves' on the Hub.", "has no such revision"),
    ],
)
def test_why_a_data_set_is_not_found(name: str, message: str, words: str) -> None:
    assert hub_download._why_not_found(name, message).startswith(words)


def test_a_name_is_no_reason() -> None:
    reason = "Couldn't reach 'me/manuscript-hands' on the Hub (LocalEntryNotFoundError)"
    assert hub_download._why("me/manuscript-hands", reason).startswith("cannot be read from the hub: Couldn't reach")
    assert "never runs" in hub_download._why("me/x", "Dataset scripts are no longer supported, but found x.py")
