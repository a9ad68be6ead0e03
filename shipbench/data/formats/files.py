"""Image files below a folder: reading them, and finding out which of the listed ones are missing."""

from __future__ import annotations

import io
import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shipbench.counts import counted, named_few
from shipbench.data.images import read_bytes
from shipbench.data.scanning import scan_images
from shipbench.errors import InputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
"""Suffixes of image files, in lower case."""

UNREAD_SUFFIXES = frozenset(
    {".gif", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".psd"}
)
"""Suffixes of image files that are not read: those of cameras, and others than the usual ones, in lower case."""

# macOS's metadata in an archive, thumbnails and bins of network drives, and what drives of Windows and Linux have.
_OF_SYSTEMS = frozenset(
    {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__pycache__"}
)


@dataclass(frozen=True)
class FolderImages:
    """Image files below ``root``, by their path relative to it."""

    root: Path

    def read(self, path: str) -> bytes:
        """Return the content of a file; raise ``InputError`` naming it if it cannot be read."""
        return read_bytes(self.root / path)

    def signatures(self, paths: Iterable[str]) -> dict[str, Path]:
        """Return the file behind each path, for ``Listing.signatures``."""
        return {path: self.root / path for path in paths}


def is_image(name: str) -> bool:
    """Return whether a file's name has the suffix of an image, ignoring case."""
    return posixpath.splitext(name)[1].lower() in SUFFIXES


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in ``folder`` that are not hidden, sorted."""
    with os.scandir(folder) as items:
        return sorted(Path(item.path) for item in items if not is_hidden(item.name) and item.is_dir())


def visible_files(folder: Path) -> Iterator[str]:
    """Yield the path of every file below a folder, relative to it, except hidden ones and those in hidden folders.

    Links to folders outside of ``folder`` are followed.
    """
    root = folder.resolve()
    # Of a million files, pathlib would take several times as long.
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not (is_hidden(name) or _is_passed_over(Path(parent, name), root))]
        prefix = os.path.relpath(parent, folder).replace(os.sep, "/")
        yield from (name if prefix == "." else f"{prefix}/{name}" for name in names if not is_hidden(name))


def _is_passed_over(folder: Path, root: Path) -> bool:
    return folder.is_symlink() and (folder.resolve().is_relative_to(root) or leads_up(folder))


def leads_up(folder: Path) -> bool:
    """Return whether a link leads to a folder on the way to it, so that following it would never end."""
    target = folder.resolve()
    return any(place.resolve().is_relative_to(target) for place in folder.parents)


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or a folder in which a system keeps its own files."""
    return name.startswith(".") or name in _OF_SYSTEMS


def require_folder(folder: Path, what: str) -> None:
    """Raise ``InputError`` if ``folder`` is not a folder; ``what`` is how the user named it."""
    if folder.is_dir():
        return
    if folder.suffix.lower() == ".npz" and folder.exists():
        raise InputError(f"{what}: {folder} is a file of arrays, not a folder; name it npz:{folder}")
    if os.path.lexists(folder):
        raise InputError(f"{what}: {folder} is a file, not a folder; unpack it if it is an archive")
    raise InputError(f"{what}: {folder} does not exist; name the folder that holds the images")


def require_files(root: Path, paths: Iterable[str], where: object, source: str | None = None) -> None:
    """Raise ``InputError`` with the number of listed files that are missing below ``root`` and the first three.

    ``source`` is the name of a kind whose locations may end in ``:FOLDER``, the folder that the paths start from.
    """
    missing = missing_files(root, paths)
    if missing:
        remedy = "restore the files or correct the paths"
        if source is not None:
            remedy = f"{remedy}, or name the folder that they start from, as in {source}:{where}:FOLDER"
        raise missing_error(root, missing, where, remedy)


def missing_error(root: Path, missing: Sequence[str], where: object, remedy: str) -> InputError:
    """Return the error for images that ``where`` lists and that do not exist below ``root``."""
    lacking = f"{counted(len(missing), 'image')} that {where} lists"
    verb = "does" if len(missing) == 1 else "do"
    return InputError(f"{lacking} {verb} not exist below {root}: {named_few(missing)}; {remedy}")


def missing_files(root: Path, paths: Iterable[str]) -> list[str]:
    """Return the paths, in order and without repeats, that are no readable file below ``root``."""
    wanted = list(dict.fromkeys(paths))
    files = scan_images(root, wanted).files
    return [path for path in wanted if path not in files]


def plain_path(path: str) -> str:
    """Return a path with ``/`` between folders and without ``.`` and needless ``..``."""
    return posixpath.normpath(path.strip().replace("\\", "/"))


def below_common_folder(paths: Sequence[str], where: object) -> tuple[Path | None, list[str]]:
    """Return the folder that holds all images of a list of absolute paths, and the paths relative to it.

    The folder is None, and the paths stay, if they are relative. Raises ``InputError`` if only some are absolute.
    """
    absolute = [path for path in paths if Path(path).is_absolute()]
    if not absolute:
        return None, list(paths)
    if len(absolute) < len(paths):
        raise InputError(f"{where} lists absolute and relative paths, such as {absolute[0]}; make all of them relative")
    root = Path(os.path.commonpath([Path(path).parent for path in paths]))
    return root, [plain_path(os.path.relpath(path, root)) for path in paths]


def find_image_root(folder: Path, paths: Sequence[str], key: str = "images") -> Path:
    """Return ``folder`` or the folder in it to which listed paths are relative.

    ``paths`` are a few listed paths. Raises ``InputError`` naming the task file's ``key`` if several folders fit; if
    none does, ``folder`` is returned and its missing files are reported later.
    """
    hits = {place: _hits(place, paths) for place in (folder, *subfolders(folder))}
    best = max(hits.values())
    places = [place for place, number in hits.items() if number == best]
    if best == 0 or places[0] == folder:
        return folder
    if len(places) > 1:
        names = " and ".join(place.name for place in places[:2])
        raise InputError(f"the images that {folder} lists exist in {names}; name one in the task file with {key} = ...")
    return places[0]


def _hits(place: Path, paths: Sequence[str]) -> int:
    return sum((place / path).is_file() for path in paths)


def lines_of(text: str) -> Iterator[str]:
    """Yield the lines of a text with their ends; unlike ``splitlines``, it divides none at a separator of Unicode."""
    return io.StringIO(text, newline="")
