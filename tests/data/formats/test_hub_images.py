"""Images in the tables of ``hf:`` data sets: row groups, cells that name files, and the identity of both."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shipbench.data import find, identities
from shipbench.data.formats import arrow_tables
from shipbench.data.formats.arrow_tables import ParquetTable
from shipbench.data.formats.hub_dataset import HubDataset
from shipbench.data.types import Identity
from shipbench.errors import InputError
from shipbench.tasks import get_task
from tests.data.formats.hub_tables import IMAGE, parquet, read
from tests.data.formats.trees import picture, sizes, tree


def test_shards_and_row_groups_are_read_in_order_by_several_threads(tmp_path: Path) -> None:
    for number in range(2):
        parquet(tmp_path / f"data/train-0000{number}-of-00002.parquet", group=2, label=[0, 1, 0, 1, 0])
    listing = read(tmp_path)
    entries = listing.splits["train"]
    assert [listing.signatures[entry.path].name[6:11] for entry in entries] == ["00000"] * 5 + ["00001"] * 5
    expected = [picture(f"train-0000{row // 5}-of-00002{row % 5}") for row in range(10)]
    content: list[Any] = [None] * 10

    def fetch(first: int) -> None:
        for row in range(first, 10, 3):
            content[row] = listing.images.read(entries[row].path)

    threads = [threading.Thread(target=fetch, args=(first,)) for first in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert content == expected


def test_only_a_few_row_groups_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipbench.data.formats.arrow_tables._KEPT_BYTES", 1)
    table = ParquetTable([parquet(tmp_path / "train.parquet", group=2, label=list(range(6)))])
    assert [table.cell("label", row) for row in (5, 0, 3, 3)] == [5, 0, 3, 3]
    assert len(table._kept) == 1


class Group:
    """A reader of Parquet with one row per group, and the column read from it, which counts questions for its size."""

    asked = 0
    column_names = ("label",)

    def read_row_group(self, group: int, columns: list[str]) -> Group:
        return self

    def column(self, name: str) -> Group:
        return self

    def __getitem__(self, row: int) -> pa.Scalar[Any]:
        return pa.scalar(row)

    @property
    def nbytes(self) -> int:
        self.asked += 1
        return 1


def test_the_size_of_what_is_kept_is_not_counted_anew(tmp_path: Path) -> None:
    table, reader = ParquetTable([parquet(tmp_path / "train.parquet", group=1, label=list(range(50)))]), Group()
    table._groups = [(file, reader, group) for file, _, group in table._groups]
    assert [table.cell("label", row) for row in range(50)] == [0] * 50
    assert reader.asked <= 100


def test_the_groups_that_fit_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = ParquetTable([parquet(tmp_path / "train.parquet", group=1, label=list(range(50)))])
    table.cell("label", 0)
    monkeypatch.setattr(arrow_tables, "_KEPT_BYTES", 3 * table._kept_bytes)
    assert [table.cell("label", row) for row in range(50)] == list(range(50))
    assert len(table._kept) == 3


def test_a_damaged_file_is_named(tmp_path: Path, private_cache: Path) -> None:
    file, whole = tmp_path / "train.parquet", parquet(tmp_path / "train.parquet", label=[0, 1] * 50).read_bytes()
    file.write_bytes(whole[:200] + bytes(400) + whole[600:])
    with pytest.raises(InputError, match=r"train\.parquet is damaged or no Parquet file \(.*\); get it again"):
        identity(tmp_path)
    file.write_bytes(whole[:200])
    with pytest.raises(InputError, match=r"train\.parquet is damaged or no Parquet file \(.*\); get it again"):
        read(tmp_path)


def test_a_file_that_the_system_does_not_open_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*train\.parquet: "):
        ParquetTable([tmp_path / "train.parquet"])


def test_a_piece_without_the_column_of_the_label_is_named(tmp_path: Path) -> None:
    parquet(tmp_path / "train-00000-of-00002.parquet", label=[0, 1])
    parquet(tmp_path / "train-00001-of-00002.parquet", number=[0, 1])
    with pytest.raises(InputError, match=r"train-00001-of-00002\.parquet has no column 'label', which another file"):
        read(tmp_path)


def test_a_binary_column_is_an_image(tmp_path: Path) -> None:
    content = pa.table({"content": [picture("0"), picture("1")], "label": [0, 1]})
    pq.write_table(content, tmp_path / "train.parquet")
    listing = read(tmp_path)
    assert listing.images.read(listing.splits["train"][1].path) == picture("1")


def test_an_image_without_bytes_is_a_file(tmp_path: Path) -> None:
    tree(tmp_path, "img/a.png", "img/b.png")
    cells = pa.array([{"bytes": None, "path": f"img/{name}.png"} for name in "ab"], IMAGE)
    pq.write_table(pa.table({"image": cells, "label": [0, 1]}), tmp_path / "train.parquet")
    listing = read(tmp_path)
    assert listing.images.read(listing.splits["train"][1].path) == picture("img/b.png")


def identity(path: Path, **options: Any) -> Identity:
    task = replace(get_task(f"hf:{path}"), options=json.dumps(options), allow_leaks=True)
    return find(task, None, ("train", "test")).identity


@pytest.fixture
def _remembered(private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Identities are remembered although the files are new."""
    monkeypatch.setattr(identities, "TICK_NS", -(10**12))


@pytest.mark.usefixtures("_remembered")
def test_another_column_of_images_holds_other_images(tmp_path: Path) -> None:
    columns = {name: [picture(f"{name}{row}") for row in range(10)] for name in ("front", "back")}
    pq.write_table(pa.table({**columns, "label": [0, 1] * 5}), tmp_path / "train.parquet")
    front, back, again = (identity(tmp_path, image_column=name) for name in ("front", "back", "front"))
    assert front == again
    assert front.fingerprint != back.fingerprint
    assert not set(front.contents.values()) & set(back.contents.values())


@pytest.mark.usefixtures("_remembered")
def test_configurations_of_the_same_files_have_images_of_their_own(tmp_path: Path) -> None:
    for number in range(3):
        parquet(tmp_path / f"p{number}.parquet", label=[0, 1] * 5)
    folds = {"fold0": ((0, 1), 2), "fold1": ((1, 2), 0)}
    configs = [
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: [p{first}.parquet, p{second}.parquet]\n"
        f"  - split: test\n    path: p{test}.parquet\n"
        for name, ((first, second), test) in folds.items()
    ]
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{''.join(configs)}---\n")
    first, second = (identity(tmp_path, config=name) for name in folds)
    assert first.fingerprint != second.fingerprint
    assert not set(first.contents.values()) & set(second.contents.values())


@pytest.mark.usefixtures("_remembered")
def test_rows_that_change_places_are_other_images(tmp_path: Path) -> None:
    names = [f"img/{row}.png" for row in range(9)]
    tree(tmp_path, *names)

    def written(cells: list[str]) -> Identity:
        column = pa.array([{"bytes": None, "path": name} for name in cells], IMAGE)
        pq.write_table(pa.table({"image": column, "label": [0, 1] * 5}), tmp_path / "train.parquet")
        return identity(tmp_path)

    # One image is listed twice, so the table is read as one file of many.
    assert written([*names, names[0]]).fingerprint != written([names[1], names[0], *names[2:], names[0]]).fingerprint


@pytest.mark.usefixtures("_remembered")
def test_a_file_that_a_cell_names_is_part_of_the_identity(tmp_path: Path) -> None:
    names = [f"img/{row}.png" for row in range(10)]
    tree(tmp_path, *names)
    cells = pa.array([{"bytes": None, "path": name} for name in names], IMAGE)
    pq.write_table(pa.table({"image": cells, "label": [0, 1] * 5}), tmp_path / "train.parquet")
    before = identity(tmp_path)
    assert identity(tmp_path) == before
    (tmp_path / "img/3.png").write_bytes(picture("another"))
    assert identity(tmp_path).fingerprint != before.fingerprint


def test_files_that_cells_name_are_looked_up_in_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"img/{row}.png" for row in range(10)]
    tree(tmp_path, *names)
    cells = pa.array([{"bytes": None, "path": name} for name in names], IMAGE)
    pq.write_table(pa.table({"image": cells, "label": [0, 1] * 5}), tmp_path / "train.parquet", row_group_size=1)
    read_rows, cell = list[int](), ParquetTable.cell

    def count(table: ParquetTable, name: str, row: int) -> Any:
        read_rows.append(row)
        return cell(table, name, row)

    monkeypatch.setattr(ParquetTable, "cell", count)
    assert list((read(tmp_path).signatures or {}).values()) == [tmp_path / name for name in names]
    assert len(read_rows) <= 1


@pytest.mark.parametrize("row", [0, 2])
def test_an_empty_cell_among_names_of_files_is_refused(tmp_path: Path, row: int) -> None:
    names: list[str | None] = [f"img/{number}.png" for number in range(4)]
    tree(tmp_path, *(name for name in names if name))
    names[row] = None
    for label, message in ((1, rf"row {row} of train has no image in the column 'image'"), (-1, None)):
        values = [0, 1, 0, 1, 0]
        values[row] = label
        cells = pa.array([{"bytes": None, "path": name} for name in [*names, "img/1.png"]], IMAGE)
        pq.write_table(pa.table({"image": cells, "label": values}), tmp_path / "train.parquet")
        if message is None:
            assert sizes(read(tmp_path)) == {"train": 4}
            continue
        with pytest.raises(InputError, match=message):
            read(tmp_path)


def test_an_image_among_names_of_files_is_not_its_table(tmp_path: Path) -> None:
    tree(tmp_path, *(f"img/{row}.png" for row in range(10)))
    cells = [{"bytes": None, "path": f"img/{row}.png"} for row in range(9)] + [{"bytes": picture("x"), "path": None}]
    pq.write_table(pa.table({"image": pa.array(cells, IMAGE), "label": [0, 1] * 5}), tmp_path / "train.parquet")
    paths = [f"train/{row:08d}" for row in range(10)]
    images = HubDataset().open(get_task(f"hf:{tmp_path}"), None, ("train",)).identify(paths)
    assert images[paths[-1]].sha256 == hashlib.sha256(picture("x")).hexdigest()


def test_a_device_in_place_of_an_image_is_refused(tmp_path: Path) -> None:
    cells = pa.array([{"bytes": None, "path": "/dev/null"}] * 2, IMAGE)
    pq.write_table(pa.table({"image": cells, "label": [0, 1]}), tmp_path / "train.parquet")
    listing = read(tmp_path)
    with pytest.raises(InputError, match="cannot read /dev/null: it is not a regular file"):
        listing.images.read(listing.splits["train"][0].path)
