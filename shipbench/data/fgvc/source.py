"""FGVC as a source: the folders of the five data sets below ``--data``, in VPT's splits.

A folder holds VPT's ``train.json``, ``val.json`` and ``test.json``, or else the official label files; validation images
that the files do not name are drawn from the training images, as many as VPT has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shipbench.counts import counted, named_few
from shipbench.data.fgvc import official
from shipbench.data.formats.files import FolderImages, missing_files, subfolders
from shipbench.data.formats.labels import Label, Rows, folder_names, make_listing, numbering_fault
from shipbench.data.formats.lists import read_class_ids, with_common_labels
from shipbench.data.formats.roles import ROLES
from shipbench.data.listings import DrawnSource, ListedSource, Listing, SplitRole
from shipbench.errors import InputError
from shipbench.tasks import Task
from shipbench.tasks.catalogue import FGVC, SplitName

_SEED = "shipbench fgvc val"


@dataclass(frozen=True)
class Layout:
    """Where a data set keeps its files.

    ``images`` is the folder that the paths in the JSON files start from, ``files`` are the official label files in one
    or several alternatives, ``read`` reads them, and ``n_val`` is the number of validation images in VPT's split.
    """

    images: str
    files: tuple[tuple[str, ...], ...]
    read: official.Reader
    n_val: int


LAYOUTS: dict[str, Layout] = {
    "cub-200-2011": Layout("images", (official.BIRD_FILES,), official.read_birds, 600),
    "nabirds": Layout("images", (official.BIRD_FILES,), official.read_birds, 2393),
    "oxford-flowers": Layout("", (("imagelabels.mat", "setid.mat"),), official.read_flowers, 1020),
    "stanford-dogs": Layout("Images", (("train_list.mat", "test_list.mat"),), official.read_dogs, 1200),
    "stanford-cars": Layout(
        "",
        (("cars_annos.mat",), ("cars_train_annos.mat", "cars_test_annos_withlabels.mat")),
        official.read_cars,
        815,
    ),
}


class FgvcSuite(ListedSource):
    """The source ``fgvc``."""

    option_names = ()

    def list(self, location: str, base: Path, options: Mapping[str, Any]) -> Listing:
        """List the images of the data set called ``location`` below ``base``; it needs no options.

        Raises ``InputError`` if the folder, its label files or images are missing, and if the files contradict
        themselves.
        """
        task = next((task for task in FGVC.tasks if location in task.folder_names), None)
        if task is None:
            raise InputError(f"FGVC has no data set {location!r}; choose {', '.join(LAYOUTS)}")
        return list_set(task, find_set(task, base))

    def open(self, task: Task, root: Path | None, splits: tuple[SplitName, ...]) -> DrawnSource:
        """Open splits of a task of the catalogue below the folder of ``--data``."""
        # The base says where the images lie; it is no part of a run's identity.
        return super().open(replace(task, base=str(find_set(task, root))), root, splits)

    def listing(self, task: Task, root: Path | None) -> Listing:
        """List the images of a task of the catalogue below the folder of ``--data``."""
        # The sizes of a task that was opened before are those of the copy.
        catalogued = next(entry for entry in FGVC.tasks if entry.name == task.name)
        return list_set(catalogued, find_set(catalogued, root))


def sets_in(root: Path) -> tuple[Task, ...]:
    """Return the tasks whose folders ``find_set`` finds in ``root``."""
    names = {folder.name.lower() for folder in _candidates(root)} if root.is_dir() else set()
    return tuple(task for task in FGVC.tasks if names.intersection(name.lower() for name in task.folder_names))


def find_set(task: Task, root: Path | None) -> Path:
    """Return the folder of a data set: below ``root``, below a folder in ``root``, or ``root`` itself.

    Raises ``InputError`` if there is none.
    """
    if root is None:
        raise InputError(
            "FGVC tasks are read from a folder; pass --data DIR or set SHIPBENCH_DATA "
            "('shipbench data import' reads the official archives)"
        )
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; name the folder that holds the FGVC data sets")
    wanted = {name.lower() for name in task.folder_names}
    for folder in _candidates(root):
        if folder.name.lower() in wanted:
            return folder
    names = " or ".join(task.folder_names[:3])
    raise InputError(f"{root} has no folder called {names}; import the data set or leave the task out")


def list_set(task: Task, folder: Path) -> Listing:
    """List the images of a data set; raise ``InputError`` that names everything that is wrong with its files."""
    layout = LAYOUTS[task.name]
    rows, names, notes = _json_rows(layout, folder) if _has_json(folder) else _official_rows(task, layout, folder)
    rows = with_common_labels(rows)
    faults = [*filter(None, [numbering_fault(rows)]), *_shared_paths(rows), *_missing(task, folder, rows)]
    if faults:
        raise InputError(f"{folder}: {'; '.join([*faults, *_absent_classes(rows)])}")
    if "val" not in rows:
        rows["train"], rows["val"] = draw_val(rows["train"], _n_val(task, layout, len(rows["train"])))
        notes.append(f"{folder.name} names no validation images, so {len(rows['val'])} are drawn from train")
    images = FolderImages(folder)
    signatures = images.signatures(path for split in rows.values() for path, _ in split)
    names = names or folder_names(rows.values())
    listing = make_listing(rows, images, folder, names=names, notes=notes, signatures=signatures)
    if listing.untrainable:
        raise InputError(listing.untrainable)
    return replace(listing, notes=(*listing.notes, *_doubts(task, layout, listing)))


def draw_val(train: Rows, n_val: int) -> tuple[Rows, Rows]:
    """Divide training images into train and ``n_val`` validation images, in the same share of every class.

    The draw follows from a hash of the paths, so it is the same on every machine.
    """
    by_class: dict[Label, list[tuple[str, Label]]] = {}
    for row in train:
        by_class.setdefault(row[1], []).append(row)
    shares = {label: len(members) * n_val / len(train) for label, members in by_class.items()}
    quotas = {label: int(share) for label, share in shares.items()}
    # What rounding down leaves goes to the largest remainders.
    by_remainder = sorted(shares, key=lambda label: (quotas[label] - shares[label], str(label)))
    for label in by_remainder[: n_val - sum(quotas.values())]:
        quotas[label] += 1
    drawn = {row for label, members in by_class.items() for row in sorted(members, key=_rank)[: quotas[label]]}
    return [row for row in train if row not in drawn], [row for row in train if row in drawn]


def _rank(row: tuple[str, Label]) -> str:
    return hashlib.sha256(f"{_SEED} {row[0]}".encode()).hexdigest()


def _n_val(task: Task, layout: Layout, n_train: int) -> int:
    """Return the number of images to draw: VPT's if train is complete, else the same share."""
    return layout.n_val if n_train == task.n_train else max(1, round(n_train * layout.n_val / task.n_train))


def _candidates(root: Path) -> Iterator[Path]:
    yield root
    children = subfolders(root)
    yield from children
    for child in children:
        if not any(child.name in task.folder_names for task in FGVC.tasks):
            yield from subfolders(child)


def _has_json(folder: Path) -> bool:
    return (folder / "train.json").is_file() and (folder / "test.json").is_file()


def _official_files(layout: Layout, folder: Path) -> tuple[str, ...] | None:
    return next((names for names in layout.files if all((folder / name).is_file() for name in names)), None)


def _json_rows(layout: Layout, folder: Path) -> tuple[dict[SplitRole, Rows], Mapping[Label, str] | None, list[str]]:
    files = {role: folder / f"{role}.json" for role in ROLES}
    rows: dict[SplitRole, Rows] = {
        role: [(_placed(path, layout), label) for path, label in read_class_ids(file)]
        for role, file in files.items()
        if file.is_file()
    }
    return rows, None, []


def _placed(path: str, layout: Layout) -> str:
    """Return a path of a JSON file relative to the data set's folder.

    Copies of Stanford Cars drop ``car_ims``; its numbers mean other images in ``cars_train`` and ``cars_test``.
    """
    if layout.read is official.read_cars and "/" not in path:
        return f"car_ims/{path}"
    return f"{layout.images}/{path}" if layout.images and not path.startswith(f"{layout.images}/") else path


def _official_rows(
    task: Task, layout: Layout, folder: Path
) -> tuple[dict[SplitRole, Rows], Mapping[Label, str] | None, list[str]]:
    files = _official_files(layout, folder)
    if files is None:
        alternatives = " or ".join(
            " and ".join(names) for names in (("train.json", "val.json", "test.json"), *layout.files)
        )
        raise InputError(f"{folder} has no labels of {task.name}; it needs {alternatives}")
    rows, names = layout.read(folder)
    return rows, names, [f"the splits of {folder.name} come from its official files ({', '.join(files)})"]


def _shared_paths(rows: Mapping[SplitRole, Rows]) -> list[str]:
    faults = []
    paths = {role: dict.fromkeys(path for path, _ in split) for role, split in rows.items()}
    pairs: Sequence[tuple[SplitRole, SplitRole]] = (("train", "test"), ("val", "test"), ("train", "val"))
    for first, second in pairs:
        shared = [path for path in paths.get(first, ()) if path in paths.get(second, {})]
        if shared:
            verb = "is" if len(shared) == 1 else "are"
            faults.append(f"{counted(len(shared), 'image')} {verb} in {first} and in {second} ({named_few(shared)})")
    return faults


def _missing(task: Task, folder: Path, rows: Mapping[SplitRole, Rows]) -> list[str]:
    listed = [path for split in rows.values() for path, _ in split]
    missing = missing_files(folder, listed)
    if not missing:
        return []
    verb = "is" if len(missing) == 1 else "are"
    fault = f"{counted(len(missing), 'image')} of {len(set(listed))} {verb} missing ({named_few(missing)})"
    if task.name == "stanford-cars" and not (folder / "car_ims").is_dir() and (folder / "cars_train").is_dir():
        fault += (
            "; cars_train and cars_test number their images apart, so they cannot stand in for car_ims: get car_ims, "
            "or remove the JSON files and add cars_train_annos.mat and cars_test_annos_withlabels.mat"
        )
    return [fault]


def _absent_classes(rows: Mapping[SplitRole, Rows]) -> list[str]:
    union = {label for split in rows.values() for _, label in split}
    absent = {role: sorted(union - {label for _, label in split}, key=str) for role, split in rows.items()}
    return [f"{role} lacks the class ids {named_few(labels)}" for role, labels in absent.items() if labels]


def _doubts(task: Task, layout: Layout, listing: Listing) -> list[str]:
    """Return one sentence if sizes or the number of classes differ from the catalogue's."""
    expected = {"train": task.n_train - layout.n_val, "val": layout.n_val, "test": task.n_test}
    sizes = {role: len(entries) for role, entries in listing.splits.items()}
    wrong = [
        f"{counted(size, f'{role} image')} instead of {expected[role]}"
        for role, size in sizes.items()
        if size != expected[role]
    ]
    if len(listing.classes) != task.num_classes:
        wrong.append(f"{counted(len(listing.classes), 'class', 'classes')} instead of {task.num_classes}")
    return [f"this copy has {', '.join(wrong)}"] if wrong else []
