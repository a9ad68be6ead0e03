"""The files that a class of torchvision reads its images from: while they stay the same, so do the images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import PIL

from shipbench.data.formats.files import visible_files
from shipbench.data.listings import Containers

# Attributes that list the file of every image, alone or in a pair with its label.
_IMAGE_LISTS = ("samples", "_samples", "imgs", "_image_files", "_images", "data")
# Attributes that name a folder or a file with the images.
_PLACES = ("_base_folder", "base_folder", "raw_folder", "processed_folder", "filename", "root")


def containers_of(dataset: Any, root: Path, arguments: Mapping[str, Any]) -> Containers | None:
    """Return the files of a data set that was constructed with ``arguments``; None if they are not known.

    ``root`` is the folder that holds the data set, perhaps beside others.
    """
    import torchvision

    files = _image_files(dataset) or sorted(_files_in_places(dataset, root))
    if not files:
        return None
    # The order of listed files is that of the images; INaturalist keeps its own in ``index``.
    order = hashlib.sha256("\0".join([*files, repr(vars(dataset).get("index"))]).encode(errors="surrogateescape"))
    chosen = repr(sorted((key, value) for key, value in arguments.items() if key != "download"))
    name, releases = type(dataset).__name__, (torchvision.__version__, PIL.__version__)
    return Containers(tuple(files), json.dumps([name, *releases, len(dataset), order.hexdigest(), chosen]))


def together(containers: Iterable[Containers | None]) -> Containers | None:
    """Return the files of all splits of a data set; None unless those of each are known."""
    files: list[str] = []
    readers: list[str] = []
    for each in containers:
        if each is None:
            return None
        files += each.files
        readers.append(each.reader)
    return Containers(tuple(files), json.dumps(readers))


def _image_files(dataset: Any) -> list[str]:
    """Return the file of every image if the class lists them, else nothing."""
    lists = [vars(dataset).get(attribute) for attribute in _IMAGE_LISTS]
    return next((files for items in lists if len(files := _paths(items)) == len(dataset)), [])


def _paths(items: Any) -> list[str]:
    if not isinstance(items, list):
        return []
    firsts = [item[0] if isinstance(item, tuple) else item for item in items]
    return [str(first) for first in firsts if isinstance(first, str | Path)]


def _files_in_places(dataset: Any, root: Path) -> Iterator[str]:
    places = {value for name in _PLACES if isinstance(value := getattr(dataset, name, None), str | Path)}
    for place in {root / value for value in places}:
        if place.is_file():
            yield str(place)
        elif place.is_dir() and not place.samefile(root):
            yield from (str(place / name) for name in visible_files(place) if (place / name).is_file())
