"""From rows of paths and labels to a listing: classes numbered once over all splits, and checks of the labels."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

from shipbench.counts import counted, named_few
from shipbench.data.formats.roles import ROLES
from shipbench.data.listings import Images, Listing, SplitRole
from shipbench.data.types import Entry
from shipbench.errors import InputError

Label: TypeAlias = str | int
Rows: TypeAlias = Sequence[tuple[str, Label]]
"""Paths and labels as the source writes them."""
Split = TypeVar("Split", bound=str)

_NAME_THEM = "name the classes in the task file if it is one: classes = [...]"
# How programs write a label that is missing, in the casing that they use; among words, nan is a name as well.
_MISSING = frozenset({"<NA>", "#N/A", "#NV"})
_NAN = frozenset({"nan", "NaN"})
_NO_NUMBER = frozenset({"na", "n/a", "null", "?"})
_NUMBER = re.compile(r"[-+]?[0-9]*[.,]?[0-9]+(?:[eE][-+]?[0-9]+)?")
# 12,500 is a whole number.
_GROUPED = re.compile(r"[-+]?[1-9][0-9]{0,2}(?:,[0-9]{3})+")
_BRACKETED = re.compile(r"\[.*[,'\"].*\]", re.DOTALL)
# More labels than this, most of them of one image, may be measurements; those with a fraction are.
_MANY = 20
_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0+)?")


def make_listing(
    rows: Mapping[SplitRole, Rows],
    images: Images,
    where: object,
    *,
    names: Mapping[Label, str] | None = None,
    notes: Iterable[str] = (),
    signatures: Mapping[str, Path] | None = None,
    doubt: str = "",
    untrainable: str = "",
) -> Listing:
    """Number the classes and return the listing.

    Integer labels are sorted as numbers, others by code point, and numbered from 0 over all splits together. ``names``
    gives the class name of each label; without it a label is its own name. ``doubt`` is why they look like no classes,
    and ``untrainable`` why the splits cannot be trained on; that a class has no image in train is another reason.
    Raises ``InputError`` if there are fewer than two classes, and if an image has two labels. A doubt explains faults
    of the labels better.
    """
    rows = {role: [(path, _composed(label)) for path, label in split] for role, split in rows.items()}
    names = None if names is None else {_composed(label): name for label, name in names.items()}
    numbers = _numbering({label for split in rows.values() for _, label in split})
    title = {label: str(label) if names is None else names[label] for label in numbers}
    present = {role: {label for _, label in split} for role, split in rows.items()}
    try:
        _check_two_classes(numbers, where)
        _check_labels(rows, where)
        _check_distinct(title, where)
    except InputError as error:
        if doubt:
            raise InputError(doubt) from error
        raise
    remarks = [*notes, *_remarks(numbers, present, title, names, rows, where)]
    splits = {
        role: tuple(Entry(path, numbers[label]) for path, label in rows[role]) for role in ROLES if rows.get(role)
    }
    untrained = _untrained_classes(numbers, present, title, where)
    untrainable = untrainable or (untrained and (doubt or untrained))
    classes = tuple(title.values())
    return Listing(classes, splits, images, tuple(remarks), signatures, doubt=doubt, untrainable=untrainable)


def _composed(label: Label) -> Label:
    """Return a text with its accented letters as one character each; macOS writes them as two."""
    return unicodedata.normalize("NFC", label) if isinstance(label, str) else label


def as_integers(labels: Iterable[str]) -> dict[str, int] | None:
    """Map texts to integers if every text is a whole number; ``None`` if one is not, as ``007`` or ``1.5``.

    ``3.0`` is one: programs write a column of integers so if a value was missing in it.
    """
    matches = {text: _WHOLE.fullmatch(text) for text in labels}
    if not all(matches.values()):
        return None
    return {text: int(match[1]) for text, match in matches.items() if match}


def numbering_fault(rows: Mapping[Split, Rows]) -> str:
    """Return a clause on a folder to which two splits give different numbers, or an empty string.

    Folders that are no classes may have any number: each split has to have one folder per class, and those that are
    compared two or more.
    """
    first: dict[str, tuple[Label, str]] = {}
    fault = ""
    for split, split_rows in rows.items():
        names = folder_names([split_rows])
        if names is None or not all(isinstance(label, int) for label in names):
            return ""
        for label, folder in names.items() if len(names) > 1 else ():
            other, earlier = first.setdefault(folder, (label, split))
            if other != label and not fault:
                fault = f"the images in {folder!r} have the label {other} in {earlier} and {label} in {split}"
    return fault


def require_one_numbering(rows: Mapping[Split, Rows], where: object) -> None:
    """Raise ``InputError`` if two splits, which number their classes apart, give a folder different numbers."""
    if fault := numbering_fault(rows):
        raise InputError(
            f"{where}: {fault}; give each class the same label in all of them, or names in place of "
            "numbers if these folders are no classes"
        )


def folder_names(splits: Iterable[Rows]) -> dict[Label, str] | None:
    """Return the name of the folder that holds a class's images, by label; ``None`` unless each class has its own."""
    names: dict[Label, str] = {}
    for split in splits:
        for path, label in split:
            parent = path.rpartition("/")[0].rpartition("/")[2]
            if not parent or names.setdefault(label, parent) != parent:
                return None
    return names if len(set(names.values())) == len(names) else None


def doubt_of(texts: Iterable[str], where: object) -> str:
    """Return why labels look like no classes (missing ones, lists, measurements), or an empty string.

    ``texts`` has the label of every image.
    """
    counts = Counter(texts)
    if absent := next(iter(_missing(counts)), None):
        return (
            f"{where} has the label {absent!r}, which stands for a missing one; label the images or leave them out, or "
            f"{_NAME_THEM}"
        )
    if several := next((text for text in counts if _is_list(text, counts)), None):
        return (
            f"{where} has the label {several!r}, a list of labels; shipbench trains classifiers with one label per "
            f"image, so leave such images out or choose another label_column, or {_NAME_THEM}"
        )
    fractions = _fractions(counts)
    if len(fractions) > _MANY and counts.total() < 2 * len(counts):
        return (
            f"{where} has the label {fractions[0]!r}, a number with a fraction, and most such numbers once; shipbench "
            f"trains classifiers, so choose another label_column, or {_NAME_THEM}"
        )
    return ""


def _missing(labels: Collection[str]) -> list[str]:
    """Return the labels that stand for a missing one."""
    words = [text for text in labels if not _is_number(text)]
    absent = [text for text in words if text in _NAN or text.lower() in _NO_NUMBER]
    among_numbers = len(labels) - len(words) > 1 and len(absent) == len(words)
    return [text for text in words if text in _MISSING or among_numbers]


def _is_number(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text) or _GROUPED.fullmatch(text))


def _fractions(labels: Collection[str]) -> list[str]:
    """Return the labels with a fraction if all labels are numbers, else none."""
    if not all(map(_is_number, labels)):
        return []
    plain = [text for text in labels if not _GROUPED.fullmatch(text)]
    return [text for text in plain if not float(text.replace(",", ".")).is_integer()]


def _is_list(text: str, labels: Collection[str]) -> bool:
    """Return whether a text lists labels: in brackets, or as several that are labels themselves."""
    if _BRACKETED.fullmatch(text):
        return True
    parts = [[part.strip() for part in text.split(mark)] for mark in "|,;" if mark in text]
    return any(all(part in labels for part in some) for some in parts)


def _numbering(labels: set[Label]) -> dict[Label, int]:
    by_number = all(isinstance(label, int) for label in labels)
    ordered = sorted(labels, key=int if by_number else str)
    return {label: number for number, label in enumerate(ordered)}


def _check_two_classes(numbers: Mapping[Label, int], where: object) -> None:
    if not numbers:
        raise InputError(f"{where} lists no labelled image; a task needs images of at least two classes")
    if len(numbers) == 1:
        only = next(iter(numbers))
        raise InputError(f"{where} has the single class {str(only)!r}; a task needs images of at least two classes")


def _check_labels(rows: Mapping[SplitRole, Rows], where: object) -> None:
    labels: dict[str, Label] = {}
    contradictory: dict[str, None] = {}
    for split in rows.values():
        for path, label in split:
            if labels.setdefault(path, label) != label:
                contradictory[path] = None
    if contradictory:
        images = f"{counted(len(contradictory), 'image')} with more than one label"
        raise InputError(f"{where} lists {images} ({named_few(list(contradictory))}); give each image one label")


def _check_distinct(title: Mapping[Label, str], where: object) -> None:
    names = list(title.values())
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{where} gives several labels the name {repeated!r}; name every class once")


def _untrained_classes(
    numbers: Mapping[Label, int],
    present: Mapping[SplitRole, set[Label]],
    title: Mapping[Label, str],
    where: object,
) -> str:
    """Return a sentence that names the classes without images in train; empty if there are none."""
    trained = present.get("train", set())
    absent = [label for label in numbers if label not in trained]
    if not absent:
        return ""
    roles = sorted({role for role, labels in present.items() if labels.intersection(absent)})
    names = [title[label] for label in absent]
    return (
        f"{where} has {counted(len(absent), 'class', 'classes')} without images in train: {named_few(names)} "
        f"(only in {' and '.join(roles)}); {_remedy(names, [title[label] for label in trained])}"
    )


def _remedy(absent: Sequence[str], trained: Sequence[str]) -> str:
    spelled = {name.strip().casefold(): name for name in trained}
    if alike := next((name for name in absent if name.strip().casefold() in spelled), None):
        other = spelled[alike.strip().casefold()]
        return f"train has {other!r} in place of {alike!r}, so spell the class the same way everywhere"
    return "add training images or leave the class out"


def _remarks(
    numbers: Mapping[Label, int],
    present: Mapping[SplitRole, set[Label]],
    title: Mapping[Label, str],
    names: Mapping[Label, str] | None,
    rows: Mapping[SplitRole, Rows],
    where: object,
) -> list[str]:
    remarks = []
    labels = list(numbers)
    if names is None and all(isinstance(label, int) for label in labels) and labels != list(range(len(labels))):
        ends = f"{labels[0]} to {labels[-1]}"
        remarks.append(f"the {len(labels)} labels of {where}, from {ends}, are numbered 0 to {len(labels) - 1}")
    if names is not None and len(labels) < len(names):
        unused = [name for label, name in names.items() if label not in numbers]
        named = f"{counted(len(unused), 'class', 'classes')} of {where} without any image"
        remarks.append(f"{named} left out: {named_few(unused)}")
    remarks += _oddities([label for label in labels if isinstance(label, str)], where)
    remarks += _single_images(rows, where)
    remarks += _repeats(rows, where)
    for role in ("val", "test"):
        absent = [label for label in labels if label not in present[role]] if present.get(role) else []
        if absent:
            classes = f"{counted(len(absent), 'class', 'classes')} of {where}"
            remarks.append(f"{role} has no image of {classes}: {named_few([title[label] for label in absent])}")
    return remarks


def _oddities(labels: Sequence[str], where: object) -> list[str]:
    """Return notes on classes that are more often no classes."""
    fractions = _fractions(labels)
    numbers = f"the labels of {where} are numbers with a fraction, such as {fractions[0]}" if fractions else ""
    absent = next((text for text in labels if text in _NAN), None)
    missing = f"{where} has the class {absent}, which programs also write for a missing label" if absent else ""
    names = set(labels)
    spelled = {label.casefold(): label for label in labels}
    alike = next((label for label in labels if spelled[label.casefold()] != label), None)
    case = (
        f"{where} has the classes {alike} and {spelled[alike.casefold()]}, which differ in case alone" if alike else ""
    )
    several = next((text for text in labels if _is_list_of_words(text, names)), None)
    words = f"{where} has the class {several!r}, each word of which is a class too" if several else ""
    advice = "if these are several labels, leave such images out, because an image has one class"
    notes = (numbers and f"{numbers}; each number is a class", missing, case, words and f"{words}; {advice}")
    return [note for note in notes if note]


def _is_list_of_words(text: str, labels: set[str]) -> bool:
    words = text.split()
    return len(set(words)) > 1 and all(word in labels for word in words)


def _single_images(rows: Mapping[SplitRole, Rows], where: object) -> list[str]:
    """Return a note if most of many classes have one image, as prices and names of images would."""
    images = Counter(label for split in rows.values() for _, label in split)
    single = sum(number == 1 for number in images.values())
    if len(images) <= _MANY or 2 * single <= len(images):
        return []
    classes = f"{single} of the {len(images)} classes of {where} have one image"
    return [f"{classes}; check that the labels are classes, not measurements or names of images"]


def _repeats(rows: Mapping[SplitRole, Rows], where: object) -> list[str]:
    repeats = {role: len(split) - len(dict(split)) for role, split in rows.items()}
    return [
        f"{where} repeats images in {counted(number, 'row')} of {role}; each counts as often as it is listed"
        for role, number in repeats.items()
        if number
    ]
