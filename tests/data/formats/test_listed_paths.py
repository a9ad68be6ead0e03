"""``csv:PATH``: how the paths of a table lead to files."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from shipbench.data.formats import listed_paths
from shipbench.data.formats.csv_table import CsvTable
from shipbench.data.listings import Listing
from shipbench.errors import InputError
from tests.data.formats.trees import labels, tree


def read(path: Path, **options: Any) -> Listing:
    return CsvTable().list(str(path), Path("/"), options)


def rows(folder: Path, *paths: str) -> Path:
    """Write a table that gives the images to two classes in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{path},{'cat' if number % 2 else 'dog'}\n" for number, path in enumerate(paths))
    (folder / "labels.csv").write_text(f"image,label\n{text}")
    return folder / "labels.csv"


def paths(listing: Listing) -> list[str]:
    return [path for path, _ in labels(listing)["train"]]


def test_paths_of_windows_and_absolute_paths_are_read(tmp_path: Path) -> None:
    tree(tmp_path, "img/a.png", "img/b.png")
    (tmp_path / "w.csv").write_text("image,label\nimg\\a.png,x\n.\\img\\b.png,y\n")
    assert labels(read(tmp_path / "w.csv"))["train"] == [("img/a.png", "x"), ("img/b.png", "y")]
    (tmp_path / "a.csv").write_text(f"image,label\n{tmp_path}/img/a.png,x\n{tmp_path}/img/b.png,y\n")
    assert labels(read(tmp_path / "a.csv"))["train"] == [("a.png", "x"), ("b.png", "y")]


def test_an_id_gets_its_extension(tmp_path: Path) -> None:
    tree(tmp_path, "0001.png", "0002.png")
    (tmp_path / "labels.csv").write_text("id,label\n0001,cat\n0002,dog\n")
    assert labels(read(tmp_path))["train"] == [("0001.png", "cat"), ("0002.png", "dog")]
    tree(tmp_path, "0001.jpg", "0002.jpg")
    with pytest.raises(InputError, match=r"0001 exists with the suffixes .jpg and .png; .* extension = "):
        read(tmp_path)
    assert labels(read(tmp_path, extension="jpg"))["train"] == [("0001.jpg", "cat"), ("0002.jpg", "dog")]


def test_missing_files_are_counted_and_the_first_three_named(tmp_path: Path) -> None:
    rows = "".join(f"{number}.jpg,{number % 2}\n" for number in range(5))
    (tmp_path / "labels.csv").write_text(f"image,label\n{rows}")
    with pytest.raises(InputError, match=r"5 images that .* do not exist below .*: 0.jpg, 1.jpg, 2.jpg and 2 more"):
        read(tmp_path)


def test_every_image_without_a_suffix_gets_its_own(tmp_path: Path) -> None:
    tree(tmp_path, "x/1.png", "x/2.JPG", "y/1.jpeg", "y/1.txt")
    (tmp_path / "y" / "bare").write_bytes((tmp_path / "x" / "1.png").read_bytes())
    listing = read(rows(tmp_path, "x/1", "x/2", "y/1", "y/bare"))
    assert paths(listing) == ["x/1.png", "x/2.JPG", "y/1.jpeg", "y/bare"]
    tree(tmp_path, "x/2.png")
    with pytest.raises(InputError, match=r"x/2 exists with the suffixes \.JPG and \.png"):
        read(tmp_path / "labels.csv")


def test_case_and_composed_letters_do_not_count(tmp_path: Path) -> None:
    composed, divided = (unicodedata.normalize(form, "Löwe") for form in ("NFC", "NFD"))
    tree(tmp_path, f"{divided}/a.JPG", "img/b.png", "img/B.PNG.txt")
    file = rows(tmp_path, f"{composed}/a.jpg", "IMG/B.png")
    listing = read(file)
    assert paths(listing) == [f"{divided}/a.JPG", "img/b.png"]
    assert listing.notes == (f"found 2 images of {file} under a path in other case or Unicode form",)


@pytest.mark.parametrize("listed", [("A.png", "a.PNG"), ("A.png", "c.png"), ("A.png", "B.png", "b.png")])
def test_case_counts_where_files_would_be_confused(tmp_path: Path, listed: tuple[str, ...]) -> None:
    tree(tmp_path, "a.png", "b.png")
    with pytest.raises(InputError, match=r"do(es)? not exist below"):
        read(rows(tmp_path, *listed))


@pytest.mark.parametrize(
    "listed",
    [
        ("1.png", "2.png"),
        ("1", "2"),
        ("/kaggle/input/bugs/1.png", "/kaggle/input/bugs/2.png"),
        ("C:\\bugs\\1.png", "C:\\bugs\\2.png"),
        ("gs://bucket/1.png", "gs://bucket/2.png"),
    ],
)
def test_images_below_the_named_folder_are_found_by_their_names(tmp_path: Path, listed: tuple[str, ...]) -> None:
    tree(tmp_path / "data", "part_1/1.png", "part_2/2.png", "part_2/2.txt")
    file = rows(tmp_path, *listed)
    listing = read(file, images=str(tmp_path / "data"))
    assert paths(listing) == ["part_1/1.png", "part_2/2.png"]
    assert listing.notes == (
        f"no path of {file} leads to an image below {tmp_path / 'data'}, so images are found by their names",
    )


def test_folders_in_common_decide_between_files_of_one_name(tmp_path: Path) -> None:
    tree(tmp_path / "data", "new/ant/1.png", "new/bee/1.png", "new/BEE/2.png")
    listing = read(rows(tmp_path, "/old/ant/1.png", "/old/bee/1.png", "/old/bee/2.png"), images=str(tmp_path / "data"))
    assert paths(listing) == ["new/ant/1.png", "new/bee/1.png", "new/BEE/2.png"]


@pytest.mark.parametrize(
    "listed", [("1.png", "2.png"), ("/a/2.png", "/b/2.png"), ("/a/2.png", "/b/4.png"), ("one/3.png", "2.png")]
)
def test_names_that_fit_several_files_or_none_are_missing(tmp_path: Path, listed: tuple[str, ...]) -> None:
    tree(tmp_path / "data", "one/1.png", "two/1.png", "one/2.png", "one/3.png")
    with pytest.raises(InputError, match=r"do(es)? not exist below"):
        read(rows(tmp_path, *listed), images=str(tmp_path / "data"))


@pytest.mark.parametrize(
    ("files", "listed", "folder"),
    [
        (("images/1.png", "images/2.png"), ("1.png", "2.png"), "images"),
        (("images/1.png", "images/2.png"), ("1", "2"), "images"),
        (("a/img/1.png", "a/img/2.png"), ("img/1.png", "img/2.png"), "a"),
        (("one/1.png", "two/2.png"), ("1.png", "2.png"), ""),
        (("img/1.png", "img/2.png"), ("/kaggle/img/1.png", "/kaggle/img/2.png"), ""),
        (("one/1.png", "two/1.png"), ("1.png", "2.png"), "FOLDER"),
    ],
)
def test_the_folder_to_name_is_proposed(
    tmp_path: Path, files: tuple[str, ...], listed: tuple[str, ...], folder: str
) -> None:
    file = rows(tree(tmp_path, *files), *listed)
    place = folder if folder == "FOLDER" else tmp_path / folder
    with pytest.raises(InputError, match=rf"2 images .* start from, as in csv:{file}:{place}$"):
        read(file)
    if folder != "FOLDER":
        listing = CsvTable().list(f"{file}:{place}", Path("/"), {})
        assert [str(listing.signatures[path]) for path in paths(listing)] == [str(tmp_path / name) for name in files]


def test_too_many_files_are_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = rows(tree(tmp_path, "img/1.png", "img/2.png"), "1.png", "2.png")
    for most, folder in ((3, tmp_path / "img"), (2, "FOLDER")):
        monkeypatch.setattr("shipbench.data.formats.listed_paths._MOST_FILES", most)
        with pytest.raises(InputError, match=rf"as in csv:{file}:{folder}$"):
            read(file)


def test_images_behind_links_are_found_by_their_names(tmp_path: Path) -> None:
    tree(tmp_path / "disk", "a.png", "b.png")
    table = rows(tmp_path / "data", "C:/old/a.png", "C:/old/b.png")
    (tmp_path / "data" / "pictures").symlink_to(tmp_path / "disk")
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data")
    (tmp_path / "disk" / "back").symlink_to(tmp_path)
    assert paths(read(table, images=str(tmp_path / "data"))) == ["pictures/a.png", "pictures/b.png"]


def test_an_address_names_the_way_out(tmp_path: Path) -> None:
    file = rows(tmp_path, "s3://bucket/a.png", "s3://bucket/b.png")
    with pytest.raises(InputError, match=r"is an address, .* name their folder, as in csv:.*labels\.csv:FOLDER"):
        read(file)
    tree(tmp_path / "images", "a.png")
    with pytest.raises(InputError, match=r"2 images that .* do not exist below .*images: s3:/bucket/a\.png"):
        read(file, images=str(tmp_path / "images"))


def test_images_of_another_split_are_not_taken_for_the_listed_ones(tmp_path: Path) -> None:
    tree(tmp_path / "data", "test/1.png", "test/2.png")
    file = rows(tmp_path, "old/train/1.png", "old/train/2.png")
    with pytest.raises(InputError, match=r"2 images that .* do not exist below"):
        read(file, images=str(tmp_path / "data"))
    tree(tmp_path / "data", "training/1.png", "training/2.png")
    assert paths(read(file, images=str(tmp_path / "data"))) == ["training/1.png", "training/2.png"]


def test_images_of_many_folders_with_the_same_names_are_found_in_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    spelling = listed_paths._spelling
    monkeypatch.setattr(listed_paths, "_spelling", lambda path: calls.append(path) or spelling(path))
    names = [f"{folder}/{number}.png" for folder in range(20) for number in range(5)]
    found = listed_paths._by_name([f"new/{name}" for name in names], [f"old/{name}" for name in names])
    assert found == {f"old/{name}": f"new/{name}" for name in names}
    assert len(calls) <= 4 * len(names)


def test_a_suffix_that_fits_all_images_counts_where_some_have_others(tmp_path: Path) -> None:
    tree(tmp_path, "1.jpg", "2.jpg", "2.png")
    assert paths(read(rows(tmp_path, "1", "2"))) == ["1.jpg", "2.jpg"]
