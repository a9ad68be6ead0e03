"""From paths as tables write them to files."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shipbench.data.formats.files import SUFFIXES, below_common_folder, is_image, plain_path, require_folder
from shipbench.data.formats.options import place, text_option
from shipbench.errors import InputError


def resolve(images: Sequence[str], folder: Path, base: Path, options: Mapping[str, Any]) -> tuple[Path, list[str]]:
    """Return the folder that images lie below and their paths relative to it, with the suffixes of files."""
    chosen = text_option(options, "images")
    root = place(chosen, base) if chosen is not None else folder
    require_folder(root, "images")
    common, images = below_common_folder(images, folder)
    root = root if common is None else common
    suffix = _extension(root, images, options)
    return root, [plain_path(image) + suffix for image in images]


def _extension(root: Path, images: Sequence[str], options: Mapping[str, Any]) -> str:
    chosen = text_option(options, "extension")
    if chosen is not None:
        return chosen if chosen.startswith(".") else f".{chosen}"
    if any(is_image(image) for image in images):
        return ""
    first = root / plain_path(images[0])
    beside = first.parent.glob(f"{glob.escape(first.name)}.*") if first.parent.is_dir() else ()
    suffixes = sorted(
        file.name[len(first.name) :] for file in beside if file.name[len(first.name) :].lower() in SUFFIXES
    )
    if len(suffixes) > 1:
        raise InputError(
            f"{images[0]} exists with the suffixes {' and '.join(suffixes)}; "
            f'choose in the task file: extension = "{suffixes[0]}"'
        )
    return suffixes[0] if suffixes else ""
