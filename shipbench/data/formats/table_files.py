"""Tables and lists as files: which of them belong together, and their rows."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from shipbench.counts import counted, named_few
from shipbench.data.formats.files import is_hidden, is_image, lines_of, plain_path, require_folder, subfolders
from shipbench.data.formats.roles import role_of, role_within
from shipbench.data.formats.table_columns import Table
from shipbench.data.images import read_bytes
from shipbench.errors import InputError
from shipbench.runtime.file_kinds import impostor

_TABLE_SUFFIXES = (".csv", ".tsv")
_DELIMITERS = (",", ";", "\t", "|")
# A line of a list: the path of an image and a label, divided by the last space or tab.
_PAIR = re.compile(r"(.*\S)[ \t]+(\S+)")
_LIST_SUFFIX = ".txt"
_LIST_COLUMNS = {"image": 0, "label": 1}
# The first line of an object or a list; databases put names of columns in brackets too.
_JSON = re.compile(r"""\s*(?:\{|\[\s*(?:["\[{]|$))""")
# The first line with which Excel is told the delimiter.
_DELIMITER_LINE = re.compile(r"\Asep=.\r?\n", re.IGNORECASE)


def table_files(path: Path) -> list[Path]:
    """Return the tables at ``path``: one, or one for each split."""
    if path.is_file():
        siblings = _split_lists if path.suffix.lower() == _LIST_SUFFIX else _split_tables
        tables = siblings(path.parent) if role_of(path.stem) else []
        return tables if path in tables else [path]
    if not path.exists():
        raise InputError(f"csv: {path} does not exist; name the file that lists the images")
    require_folder(path, "csv")
    if tables := _split_tables(path):
        return tables
    tables = _visible_tables(path)
    if len(tables) > 1:
        names = named_few([file.name for file in tables])
        raise InputError(f"{path} holds several tables ({names}); name one, as in csv:{tables[0]}")
    tables = tables or _split_lists(path) or _tables_in_split_folders(path)
    if not tables:
        raise InputError(f"{path} holds no table (.csv); name the file, as in csv:labels.csv")
    return tables


def _split_tables(folder: Path) -> list[Path]:
    """Return the tables named after splits if one of them is train."""
    tables = [file for file in _visible_tables(folder) if role_within(file.stem)]
    return tables if any(role_within(file.stem) == "train" for file in tables) else []


def _split_lists(folder: Path) -> list[Path]:
    """Return the lists of paths and labels named after splits if one of them is train."""
    files = [file for file in _visible_files(folder, (_LIST_SUFFIX,)) if role_within(file.stem)]
    first = {file: _first_line(file) for file in files if file.is_file()}
    lists = [file for file, line in first.items() if _pair(line)]
    bare = [file for file, line in first.items() if file not in lists and (_in_folder(line) or is_image(line.strip()))]
    if not lists:
        lists, bare = [file for file in bare if _in_folder(first[file])], []
    if not any(role_within(file.stem) == "train" for file in lists):
        return []
    if bare:
        names = named_few([file.name for file in bare])
        raise InputError(
            f"{folder}: {names} {'lists' if len(bare) == 1 else 'list'} images without labels; add a label to each "
            "line, or move the labelled lists to a folder of their own"
        )
    return lists


def _tables_in_split_folders(folder: Path) -> list[Path]:
    """Return the tables of one name in folders named after splits, each beside its images, if one of them is train."""
    splits = [split for split in subfolders(folder) if role_of(split.name)]
    tables = [table for split in splits for table in _visible_tables(split)]
    is_alike = len({table.name for table in tables}) == 1
    return tables if is_alike and any(role_of(table.parent.name) == "train" for table in tables) else []


def _first_line(file: Path) -> str:
    with file.open("rb") as stream:
        return next((line for line in stream if line.strip()), b"").decode("utf-8-sig", "replace")


def _pair(line: str) -> tuple[str, str] | None:
    """Return the path and the label in a line of a list; None for another line, as the header of a table."""
    match = _PAIR.fullmatch(line.strip())
    return (match[1], match[2]) if match and is_image(match[1]) else None


def _in_folder(line: str) -> tuple[str, str] | None:
    """Return the path and the folder in a line of a list without labels; None for another line."""
    path = plain_path(line)
    folder = path.rpartition("/")[0].strip("/")
    is_path = not any(mark in line for mark in (*_DELIMITERS, "://")) and (is_image(path) or " " not in path)
    return (path.lstrip("/"), folder) if is_path and folder.strip(".") else None


def _visible_tables(folder: Path) -> list[Path]:
    return _visible_files(folder, _TABLE_SUFFIXES)


def _visible_files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files with some suffixes, without the ``._train.csv`` that macOS stores beside a ``train.csv``."""
    return [file for file in sorted(folder.iterdir()) if file.suffix.lower() in suffixes and not is_hidden(file.name)]


def read_table(file: Path) -> Table:
    """Read a table or a list; raise ``InputError`` naming what is wrong with it."""
    text = _DELIMITER_LINE.sub("\n", _text(file))
    header = next((line for line in lines_of(text) if line.strip()), "").rstrip("\r\n")
    if _pair(header):
        return Table(file, _LIST_COLUMNS, _list_rows(file, text, _pair, "a path, a space and a label"))
    if _in_folder(header):
        paths = _list_rows(file, text, _in_folder, "a folder and an image in it")
        return Table(file, _LIST_COLUMNS, _without_split_folder(file, paths), has_labels=False)
    if _JSON.match(header):
        raise InputError(f"{file} is JSON, not a table; write a table with a row per image, as image,label")
    delimiter = next((mark for mark in _DELIMITERS if mark in header), ",")
    reader = csv.reader(lines_of(text), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InputError(f"{file}, line {reader.line_num}: {error}; correct the line") from error
    if not lines:
        raise InputError(f"{file} is empty; write a header and one line per image")
    (_, names), *rows = lines
    _check_shape(file, names, rows)
    return Table(file, {name.strip().lower(): index for index, name in enumerate(names)}, rows, names)


def _text(file: Path) -> str:
    content = read_bytes(file)
    try:
        text = content.decode("utf-8-sig")
        if "\0" not in text:
            return text
        fault = None
    except UnicodeDecodeError as error:
        fault = error
    clause = impostor(content, "save it as CSV") or "is not UTF-8 text; save it as UTF-8"
    raise InputError(f"{file} {clause}") from fault


def _list_rows(
    file: Path, text: str, read: Callable[[str], tuple[str, str] | None], form: str
) -> list[tuple[int, Sequence[str]]]:
    """Return the rows of a list with their lines; raise ``InputError`` for a line of another form."""
    rows: list[tuple[int, Sequence[str]]] = []
    for number, line in enumerate(lines_of(text), start=1):
        pair = read(line.rstrip("\r\n"))
        if pair is not None:
            rows.append((number, pair))
        elif line.strip():
            raise InputError(f"{file}, line {number}: expected {form}, found {line.rstrip()[:120]!r}")
    return rows


def _without_split_folder(file: Path, rows: Sequence[tuple[int, Sequence[str]]]) -> Sequence[tuple[int, Sequence[str]]]:
    """Return the rows of a list without labels in which no folder of a split is part of a class.

    Raises ``InputError`` for images of several splits, which would become classes of their own.
    """
    folders = [folder.split("/") for _, (_, folder) in rows]
    depth = next((i for i in range(min(map(len, folders)) - 1) if all(role_of(parts[i]) for parts in folders)), None)
    if depth is None or len({tuple(parts[:depth]) for parts in folders}) > 1:
        return rows
    splits = sorted({parts[depth] for parts in folders})
    if len(splits) > 1:
        raise InputError(
            f"{file} lists images in folders of several splits ({', '.join(splits)}) without labels; name the folder "
            "above them, as in folder:PATH, or write a list for each split, as train.txt and test.txt"
        )
    return [
        (line, (path, "/".join([*parts[:depth], *parts[depth + 1 :]])))
        for (line, (path, _)), parts in zip(rows, folders, strict=True)
    ]


def _check_shape(file: Path, names: Sequence[str], rows: Sequence[tuple[int, Sequence[str]]]) -> None:
    if any(is_image(name.strip()) for name in names):
        raise InputError(f"{file} has no header; name its columns in the first line, as in image,label")
    lower = [name.strip().lower() for name in names]
    repeated = next((name for name in lower if name and lower.count(name) > 1), None)
    if repeated is not None:
        raise InputError(f"{file} has several columns called {repeated!r}; rename one")
    odd = next(((line, row) for line, row in rows if len(row) != len(names)), None)
    if odd is not None:
        shape = f"{counted(len(odd[1]), 'value')} for {counted(len(names), 'column')}"
        raise InputError(f"{file}, line {odd[0]} has {shape}; correct the line")
    if not rows:
        raise InputError(f"{file} has a header but no rows; write one line per image")
