"""``csv:PATH``: columns, splits and labels of tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shipbench.data.formats.csv_table import CsvTable
from shipbench.data.formats.table_columns import IMAGE_COLUMNS, LABEL_COLUMNS
from shipbench.data.listings import Listing, numbered
from shipbench.errors import InputError
from shipbench.tasks import get_task
from tests.data.formats.trees import labels, sizes, table, tree

PLAIN = "image,label\na.png,cat\nb.png,dog\n"


def read(path: Path, **options: Any) -> Listing:
    return CsvTable().list(str(path), Path("/"), options)


@pytest.mark.parametrize("column", IMAGE_COLUMNS)
def test_the_image_column_has_many_names(tmp_path: Path, column: str) -> None:
    assert sizes(read(table(tmp_path, PLAIN.replace("image", column.upper())))) == {"train": 2}


@pytest.mark.parametrize("column", LABEL_COLUMNS)
def test_the_label_column_has_many_names(tmp_path: Path, column: str) -> None:
    assert read(table(tmp_path, PLAIN.replace("label", f" {column.title()} "))).classes == ("cat", "dog")


@pytest.mark.parametrize(
    "header", ["Image_ID,labels", "file path,Class Name", "id,filename,label", "id,image_name,label", "filepaths,label"]
)
def test_further_names_count_where_no_column_has_a_plainer_one(tmp_path: Path, header: str) -> None:
    rows = ("1,a.png,cat\n2,b.png,dog\n") if header.startswith("id,") else "a.png,cat\nb.png,dog\n"
    assert labels(read(table(tmp_path, f"{header}\n{rows}"))) == {"train": [("a.png", "cat"), ("b.png", "dog")]}


def test_two_further_names_ask_for_one(tmp_path: Path) -> None:
    text = "image,labels,class id\na.png,cat,0\nb.png,dog,1\n"
    with pytest.raises(InputError, match=r"could be the label \(labels, class id\)"):
        read(table(tmp_path, text))
    assert read(table(tmp_path, text.replace("labels", "label"))).classes == ("cat", "dog")


def test_lines_end_as_on_any_machine(tmp_path: Path) -> None:
    text = "image;label\ra.png;cat, black\rb.png;dog\r"
    tree(tmp_path, "a.png", "b.png")
    (tmp_path / "labels.csv").write_bytes(text.encode())
    assert read(tmp_path / "labels.csv").classes == ("cat, black", "dog")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_are_divided_by_comma_semicolon_or_tab(tmp_path: Path, delimiter: str) -> None:
    text = "\ufeffpath,species,label\r\na.png,x,cat\r\n\r\nb.png,y,dog\r\n"
    table(tmp_path, PLAIN)
    (tmp_path / "labels.csv").write_bytes(text.replace(",", delimiter).encode())
    assert labels(read(tmp_path / "labels.csv")) == {"train": [("a.png", "cat"), ("b.png", "dog")]}


def test_quoted_cells_hold_commas(tmp_path: Path) -> None:
    for space in ("", " "):
        text = f'image,label\na.png,{space}"cat, black"\nb.png,{space}"dog"\n'
        assert read(table(tmp_path, text)).classes == ("cat, black", "dog")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,path,label\na.png,a.png,cat\n", r"could be the image \(image, path\); .* image_column = \"image\""),
        ("image,label,class\na.png,cat,1\n", r"could be the label \(label, class\); .* label_column = \"label\""),
        ("image,label,split,set\na.png,cat,train,1\n", r"could be the split \(split, set\)"),
        ("photo,label\na.png,cat\n", r"no column for the image \(its columns are photo, label\); .* image_column = "),
        ("image,species\na.png,cat\n", r"no column for the label .* label_column = "),
        ("a.png,cat\nb.png,dog\n", r"has no header"),
        ("image,label\na.png\n", r"line 2 has 1 value for 2 columns"),
        ("image,label\n", r"a header but no rows"),
        ("", r"is empty"),
        ("image,label\na.png,cat;dog\n", r"line 2: 'cat;dog' is a list of labels"),
        ("image,label\nhttps://x.org/a.png,cat\n", r"line 2: 'https://x.org/a.png' is an address"),
        ("image,label\na.png,cat\nb.png,\n", r"1 row without a label, such as b.png \(line 3\)"),
        ("image,label,split\na.png,cat,0\nb.png,dog,1\nc.png,cat,2\n", r"no train split \(its splits: 0, 1, 2\)"),
        ("image,label,split\na.png,cat,train\nb.png,dog,train\nc.png,cat,val\n", r"a val split \(val\) but no test"),
        ("image,label,split\na.png,cat,train\nb.png,dog,\n", r"1 row without a value for the split, .* line 3"),
        ("image,label\na.png,cat\na.png,dog\n", r"1 image with more than one label \(a.png\)"),
        ("image,image,label\na.png,a.png,cat\n", r"several columns called 'image'"),
    ],
)
def test_a_table_that_decides_nothing_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(table(tmp_path, text))


def test_the_task_file_names_the_columns(tmp_path: Path) -> None:
    file = table(tmp_path, "photo,image,label,class\na.png,1,x,cat\nb.png,2,x,dog\n")
    assert read(file, image_column="photo", label_column="class").classes == ("cat", "dog")
    with pytest.raises(InputError, match=r"has no column 'kind' \(label_column\); its columns are photo, image"):
        read(file, image_column="photo", label_column="kind")


def test_split_words_and_switches(tmp_path: Path) -> None:
    words = "image,label,split\na.png,x,Training\nb.png,y,training\nc.png,x,dev\nd.png,y,eval\n"
    assert sizes(read(table(tmp_path / "words", words))) == {"train": 2, "val": 1, "test": 1}
    for one, zero in (("1", "0"), ("1.0", "0.0"), ("True", "False")):
        switch = f"image,label,is_train\na.png,x,{one}\nb.png,y,{one}\nd.png,y,{zero}\n"
        assert sizes(read(table(tmp_path / "switch", switch))) == {"train": 2, "test": 1}


def test_a_column_of_split_words_is_the_split_whatever_its_name(tmp_path: Path) -> None:
    text = "image,label,usage\na.png,x,train\nb.png,y,train\nc.png,x,Test\n"
    assert sizes(read(table(tmp_path, text))) == {"train": 2, "test": 1}
    two = "image,label,usage,phase\na.png,x,train,train\nb.png,y,train,train\nc.png,x,test,val\n"
    with pytest.raises(InputError, match=r"could be the split \(usage, phase\)"):
        read(table(tmp_path, two))
    assert sizes(read(table(tmp_path, two), split_column="usage")) == {"train": 2, "test": 1}
    other = "image,label,vehicle\na.png,x,train\nb.png,y,train\nc.png,x,car\n"
    assert sizes(read(table(tmp_path, other))) == {"train": 3}


def test_numbers_of_splits_are_decided_in_the_task_file(tmp_path: Path) -> None:
    file = table(tmp_path, "image,label,split\na.png,x,0\nb.png,y,0\nc.png,x,1\nd.png,y,2\n")
    assert sizes(read(file, splits={"train": 0, "val": 1, "test": 2})) == {"train": 2, "val": 1, "test": 1}
    listing = read(file, splits={"train": "0", "test": "2"})
    assert sizes(listing) == {"train": 2, "test": 1}
    assert "left out 1 row" in listing.notes[0]


def test_integers_are_sorted_as_numbers_and_the_renumbering_is_said(tmp_path: Path) -> None:
    listing = read(table(tmp_path, "image,label\na.png,10\nb.png,9\n"))
    assert listing.classes == ("9", "10")
    assert listing.notes == (f"the 2 labels of {tmp_path / 'labels.csv'}, from 9 to 10, are numbered 0 to 1",)
    assert read(table(tmp_path, "image,label\na.png,1\nb.png,0\n")).notes == ()


def test_whole_numbers_may_have_a_point(tmp_path: Path) -> None:
    table(tmp_path, "image,label\na.png,10.0\nb.png,9.0\nc.png,-1.00\n", "train.csv")
    table(tmp_path, "image,label\nd.png,10\n", "test.csv")
    listing = read(tmp_path)
    assert listing.classes == ("-1", "9", "10")
    assert labels(listing)["test"] == [("d.png", "10")]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            " ".join(f"{number}.5" for number in range(21)),
            r"has the label '0\.5', a number with a fraction, and most .* another label_column, or name the classes",
        ),
        ("1 1,2 2", r"has the label '1,2', a list of labels"),
        ("cat cat|dog dog", r"has the label 'cat\|dog', a list of labels"),
        ("cat cat,dog dog", r"has the label 'cat,dog', a list of labels"),
        ("['cat'] ['cat','dog']", r"has the label \"\['cat'\]\", a list of labels"),
        ("cat #N/A", r"has the label '#N/A', which stands for a missing one"),
        ("0 1 nan", r"has the label 'nan', which stands for a missing one"),
        ("0.5 1.5 NaN NA", r"has the label 'NaN', which stands for a missing one"),
        ("0 1 NA", r"has the label 'NA', which stands for a missing one"),
    ],
)
def test_labels_that_are_no_classes_are_refused(tmp_path: Path, values: str, message: str) -> None:
    task = get_task(f"csv:{labelled(tmp_path, values.split())}")
    listing = CsvTable().listing(task, None)
    with pytest.raises(InputError, match=message):
        numbered(task, listing)
    named = replace(task, class_names=tuple(values.split()))
    assert numbered(named, listing).classes == named.class_names


def test_numbers_with_a_fraction_are_classes_if_each_has_several_images(tmp_path: Path) -> None:
    numbers = [f"{number}.5" for number in range(21)]
    listing = read(labelled(tmp_path, numbers * 2))
    assert (set(listing.classes), listing.doubt) == (set(numbers), "")


def test_a_doubt_about_labels_explains_what_else_is_wrong(tmp_path: Path) -> None:
    tree(tmp_path, *(f"{n}.png" for n in range(30)))
    rows = "".join(f"{n}.png,{n}.5,{'train' if n < 25 else 'test'}\n" for n in range(30))
    listing = read(table(tmp_path, f"image,label,split\n{rows}"))
    assert "has the label '0.5', a number with a fraction, and most such numbers once" in listing.untrainable


def labelled(folder: Path, values: Sequence[str]) -> Path:
    """Write a table of one image per label."""
    rows = "".join(f'{number}.png,"{value}"\n' for number, value in enumerate(values))
    tree(folder, *(f"{number}.png" for number in range(len(values))))
    (folder / "labels.csv").write_text(f"image,label\n{rows}")
    return folder / "labels.csv"


@pytest.mark.parametrize(
    "values",
    [
        ("cat, black", "cat", "NA", "none", "1.5 mm", "Beetle|red", "Nan"),
        ("0", "1", "2", "-"),
        ("0", "1", "2", "none"),
        ("1", "na"),
        ("[bg]", "[cat]", "[dog]"),
        ("1,500", "2,500"),
        ("1,500", "12,500,000"),
    ],
)
def test_words_that_look_like_other_labels_stay_classes(tmp_path: Path, values: tuple[str, ...]) -> None:
    listing = read(labelled(tmp_path, values))
    assert (set(listing.classes), listing.notes) == (set(values), ())


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ("0.5 1 2", "the labels of {} are numbers with a fraction, such as 0.5; each number is a class"),
        ("3.10 3.9", "the labels of {} are numbers with a fraction, such as 3.10; each number is a class"),
        ("0,37 12", "the labels of {} are numbers with a fraction, such as 0,37; each number is a class"),
        ("cat nan", "{} has the class nan, which programs also write for a missing label"),
        (
            " ".join(f"{number // 2}.5" for number in range(42)),
            "the labels of {} are numbers with a fraction, such as 0.5; each number is a class",
        ),
    ],
)
def test_classes_that_may_be_none_are_noted(tmp_path: Path, values: str, note: str) -> None:
    file = labelled(tmp_path, values.split())
    listing = read(file)
    assert (set(listing.classes), listing.notes) == (set(values.split()), (note.format(file),))


@pytest.mark.parametrize("values", [("cat", "dog", "cat dog"), ("0", "1", "1 0")])
def test_a_class_of_words_that_are_classes_is_noted(tmp_path: Path, values: tuple[str, ...]) -> None:
    file = labelled(tmp_path, values)
    assert read(file).notes == (
        f"{file} has the class {values[-1]!r}, each word of which is a class too; if these are several labels, leave "
        "such images out, because an image has one class",
    )


@pytest.mark.parametrize("several", ["golden retriever", "dog dog"])
def test_a_class_of_several_words_is_a_class(tmp_path: Path, several: str) -> None:
    assert read(labelled(tmp_path, ("dog", "retriever", several))).notes == ()


@pytest.mark.parametrize(("single", "pairs"), [(21, 0), (11, 10)])
def test_many_classes_of_one_image_are_noted(tmp_path: Path, single: int, pairs: int) -> None:
    file = labelled(tmp_path, [str(label) for label in (*range(single + pairs), *range(pairs))])
    assert read(file).notes == (
        f"{single} of the 21 classes of {file} have one image; check that the labels are classes, not measurements or "
        "names of images",
    )


@pytest.mark.parametrize(("single", "pairs"), [(20, 0), (11, 11)])
def test_few_classes_of_one_image_are_not_noted(tmp_path: Path, single: int, pairs: int) -> None:
    assert read(labelled(tmp_path, [str(label) for label in (*range(single + pairs), *range(pairs))])).notes == ()


def test_an_image_that_a_table_repeats_is_said(tmp_path: Path) -> None:
    file = table(tmp_path, "image,label\na.png,cat\na.png,cat\n./a.png,cat\nb.png,dog\n")
    assert read(file).notes == (f"{file} repeats images in 2 rows of train; each counts as often as it is listed",)


@pytest.mark.parametrize("classes", [("training", "invoice", "evaluation"), ("training", "testing", "evaluation")])
def test_the_column_of_the_label_is_not_that_of_the_split(tmp_path: Path, classes: tuple[str, ...]) -> None:
    text = "image,class_name\n" + "".join(f"{name}.png,{name}\n" for name in classes)
    assert labels(read(table(tmp_path, text))) == {"train": [(f"{name}.png", name) for name in classes]}


@pytest.mark.parametrize("options", [{}, {"splits": {"train": "train"}}])
def test_a_column_of_origins_is_not_that_of_the_split(tmp_path: Path, options: dict[str, Any]) -> None:
    text = "image,label,original_split\na.png,cat,train\nb.png,dog,val\nc.png,dog,unused\n"
    assert sizes(read(table(tmp_path, text), **options)) == {"train": 3}


def test_a_column_is_of_the_split_if_the_task_file_names_its_values(tmp_path: Path) -> None:
    text = "Bild;Klasse;Teilmenge\na.png;cat;Training\nb.png;dog;Training\nc.png;cat;Validierung\nd.png;dog;Test\n"
    file, columns = table(tmp_path, text), {"image_column": "Bild", "label_column": "Klasse"}
    assert sizes(read(file, **columns)) == {"train": 4}
    assert sizes(read(file, **columns, splits={"val": "Validierung"})) == {"train": 2, "val": 1, "test": 1}


def test_leading_zeros_make_text(tmp_path: Path) -> None:
    assert read(table(tmp_path, "image,label\na.png,010\nb.png,9\n")).classes == ("010", "9")


def test_a_table_for_each_split_is_numbered_once(tmp_path: Path) -> None:
    table(tmp_path, "image,label\na.png,1\nb.png,2\n", "train.csv")
    table(tmp_path, "image,label\nc.png,2\n", "test.csv")
    for path in (tmp_path, tmp_path / "train.csv"):
        assert labels(read(path)) == {"train": [("a.png", "1"), ("b.png", "2")], "test": [("c.png", "2")]}


def test_tables_that_number_their_classes_differently_are_refused(tmp_path: Path) -> None:
    table(tmp_path, "image,label\nant/1.png,0\nbee/1.png,1\n", "train.csv")
    table(tmp_path, "image,label\nant/9.png,1\nbee/9.png,0\n", "test.csv")
    with pytest.raises(InputError, match=r"the images in 'ant' have the label . in t.* give each class the same label"):
        read(tmp_path)
    # Folders whose classes have names are other things than classes.
    table(tmp_path, "image,label\nant/1.png,night\nbee/1.png,day\n", "train.csv")
    table(tmp_path, "image,label\nant/9.png,day\nbee/9.png,night\n", "test.csv")
    assert read(tmp_path).classes == ("day", "night")


def test_a_test_table_without_labels_is_left_out(tmp_path: Path) -> None:
    table(tmp_path, PLAIN, "train.csv")
    table(tmp_path, "image\nc.png\n", "test.csv")
    listing = read(tmp_path)
    assert sizes(listing) == {"train": 2}
    assert listing.notes == (f"test in {tmp_path} has no labels and is left out",)


def test_a_table_whose_split_column_is_named_is_read_alone(tmp_path: Path) -> None:
    file = table(tmp_path, "image,label,part\na.png,x,train\nb.png,y,train\nc.png,x,test\n", "train.csv")
    table(tmp_path, "image\nd.png\n", "test.csv")
    assert sizes(read(file)) == {"train": 3}
    assert sizes(read(file, split_column="part")) == {"train": 2, "test": 1}
    with pytest.raises(InputError, match=r"a table for each split, so split_column means nothing.*csv:.*train\.csv"):
        read(tmp_path, split_column="part")


def test_several_tables_ask_for_one(tmp_path: Path) -> None:
    table(tmp_path, PLAIN)
    assert sizes(read(tmp_path)) == {"train": 2}
    table(tmp_path, PLAIN, "more.csv")
    with pytest.raises(InputError, match=r"several tables \(labels.csv, more.csv\)|several tables \(more.csv"):
        read(tmp_path)


def test_images_lie_below_another_folder(tmp_path: Path) -> None:
    tree(tmp_path / "pictures", "a.png", "b.png")
    (tmp_path / "labels.csv").write_text(PLAIN)
    listing = CsvTable().list("labels.csv", tmp_path, {"images": "pictures"})
    assert listing.signatures == {name: tmp_path / "pictures" / name for name in ("a.png", "b.png")}


def test_the_location_names_the_folder_of_the_images(tmp_path: Path) -> None:
    tree(tmp_path / "pictures", "a.png", "b.png")
    tree(tmp_path / "odd:name", "a.png", "b.png")
    file = tmp_path / "lists" / "labels.csv"
    file.parent.mkdir()
    file.write_text(PLAIN)
    for location in ("lists/labels.csv:pictures", f"lists:{tmp_path / 'pictures'}"):
        listing = CsvTable().list(location, tmp_path, {})
        assert listing.signatures == {name: tmp_path / "pictures" / name for name in ("a.png", "b.png")}
    chosen = CsvTable().list("lists", tmp_path, {"images": "odd:name"})
    assert chosen.signatures == {name: tmp_path / "odd:name" / name for name in ("a.png", "b.png")}
    (tmp_path / "odd:name" / "labels.csv").write_text(PLAIN)
    assert CsvTable().list("odd:name", tmp_path, {}).signatures == chosen.signatures
    with pytest.raises(InputError, match=r"images: .*nowhere does not exist"):
        CsvTable().list("lists:nowhere", tmp_path, {})
    with pytest.raises(InputError, match=r"C:labels\.csv does not exist; name the file"):
        CsvTable().list("C:labels.csv", tmp_path, {})
    with pytest.raises(InputError, match="both name the folder of the images; give one"):
        CsvTable().list("lists:pictures", tmp_path, {"images": "odd:name"})
    with pytest.raises(InputError, match=r"a\.png, b\.png; .* or name the folder .*, as in csv:.*/lists:FOLDER"):
        CsvTable().list("lists", tmp_path, {})


def test_a_list_has_no_header(tmp_path: Path) -> None:
    tree(tmp_path / "pictures", "my cat.png", "b.png", "c.png", "d.png")
    (tmp_path / "lists").mkdir()
    for name, text in {
        "train": "\ufeffmy cat.png 10\n\nb.png\t9\r\n",
        "val": "c.png 9\n",
        "test": "d.png 10\n",
        "train_readme": "nothing",
        "classes": "9 bee\n10 cat\n",
    }.items():
        (tmp_path / "lists" / f"{name}.txt").write_text(text)
    for location in ("lists:pictures", "lists/train.txt:pictures"):
        assert labels(CsvTable().list(location, tmp_path, {})) == {
            "train": [("my cat.png", "10"), ("b.png", "9")],
            "val": [("c.png", "9")],
            "test": [("d.png", "10")],
        }
    (tmp_path / "all.lst").write_text("c.png bee\nd.png cat\n")
    assert labels(CsvTable().list("all.lst:pictures", tmp_path, {})) == {"train": [("c.png", "bee"), ("d.png", "cat")]}


def test_cells_hold_separators_of_lines_that_are_none_in_a_table(tmp_path: Path) -> None:
    text = "image,label,caption\na.png,cat,one\u2028two\nb.png,dog,\x0c\x85three\n"
    assert labels(read(table(tmp_path, text))) == {"train": [("a.png", "cat"), ("b.png", "dog")]}
    with pytest.raises(InputError, match=r"line 4 has 1 value for 3 columns"):
        read(table(tmp_path, f"{text}c.png\n"))


def test_folders_of_splits_in_bare_paths_are_no_classes(tmp_path: Path) -> None:
    tree(tmp_path, "train/1.jpg", "test/2.jpg")
    for name, paths in {"train": ("ant/1.jpg", "bee/2.jpg"), "test": ("bee/3.jpg",)}.items():
        tree(tmp_path / "data" / name, *paths)
        (tmp_path / f"{name}.txt").write_text("".join(f"./data/{name}/{path}\n" for path in paths))
    assert labels(read(tmp_path)) == {
        "train": [("data/train/ant/1.jpg", "data/ant"), ("data/train/bee/2.jpg", "data/bee")],
        "test": [("data/test/bee/3.jpg", "data/bee")],
    }
    (tmp_path / "all.lst").write_text("train/ant/1.jpg\ntest/ant/2.jpg\n")
    with pytest.raises(InputError, match=r"all\.lst lists images in folders of several splits \(test, train\) without"):
        read(tmp_path / "all.lst")
    (tmp_path / "all.lst").write_text("train/1.jpg\ntest/2.jpg\n")
    assert read(tmp_path / "all.lst").classes == ("test", "train")


def test_a_list_without_labels_is_not_left_out(tmp_path: Path) -> None:
    for name, line in {"train": "a.png 0", "test": "b.png"}.items():
        (tmp_path / f"{name}.txt").write_text(f"{line}\n")
    with pytest.raises(InputError, match=r"test\.txt lists images without labels; add a label to each line"):
        read(tmp_path)


def test_a_line_of_a_list_that_is_no_pair_is_named(tmp_path: Path) -> None:
    (tmp_path / "all.txt").write_text("a.png 0\nb.png\n")
    with pytest.raises(InputError, match=r"all\.txt, line 2: expected a path, a space and a label, found 'b\.png'"):
        read(tmp_path / "all.txt")
    with pytest.raises(InputError, match=r"has no header"):
        read(table(tmp_path, "a b.png, c d\nb.png, e\n"))


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"csv: .*nothing\.csv does not exist; name the file that lists the images"):
        read(tmp_path / "nothing.csv")


def test_hidden_tables_are_no_tables(tmp_path: Path) -> None:
    table(tmp_path, PLAIN, "train.csv")
    table(tmp_path, "image,label\nc.png,dog\n", "test.csv")
    for name in ("._train.csv", "._test.csv"):
        (tmp_path / name).write_bytes(b"\x00\x05\x16\x07\x00\xb0")
    assert sizes(read(tmp_path)) == sizes(read(tmp_path / "train.csv")) == {"train": 2, "test": 1}


def test_a_line_that_names_the_delimiter_is_no_header(tmp_path: Path) -> None:
    assert read(table(tmp_path, "sep=;\nimage;label\na.png;cat, black\nb.png;dog\n")).classes == ("cat, black", "dog")
    with pytest.raises(InputError, match=r"line 3 has 3 values for 2 columns"):
        read(table(tmp_path, "sep=;\nimage;label\na.png;cat;x\n"))


def test_a_spreadsheet_and_an_archive_are_named(tmp_path: Path) -> None:
    for content, words in (
        (b"PK\x03\x04\x14\x00\x06\x00[Content_Types].xml\xff", "is a spreadsheet or another document of Office; save"),
        (b"\x1f\x8b\x08\xff", "is a gzip archive; unpack it"),
        (b"image,label\na.png,\xe4\n", "is not UTF-8 text; save it as UTF-8"),
        (b"MATLAB 5.0 MAT-file\0\0", "is not UTF-8 text; save it as UTF-8"),
    ):
        (tmp_path / "labels.csv").write_bytes(content)
        with pytest.raises(InputError, match=words):
            read(tmp_path / "labels.csv")
