"""Archives of a copy of VTAB-1k, and their import."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

from shipbench.data.acquisition.archives import LIMITS, Limits
from shipbench.data.acquisition.importing import import_archives

TASKS = ("cifar100", "dtd")


def zipped(folder: Path, file: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, prefix + path.relative_to(folder).as_posix())
    return file


def tarred(folder: Path, file: Path, mode: str, prefix: str = "") -> Path:
    with tarfile.open(file, mode) as archive:
        archive.add(folder, prefix or ".")
    return file


def import_archive(source: Path, target: Path, limits: Limits = LIMITS) -> list[str]:
    return import_archives([source], target, limits=limits)


def cut_in_two(copy: Path, folder: Path) -> list[Path]:
    """Zip a copy as Google Drive does: one folder spread over archives that share the names of its folders."""
    files = [path for path in sorted(copy.rglob("*")) if path.is_file()]
    parts = [folder / f"vtab-1k-20240101T000000Z-00{number}.zip" for number in (1, 2)]
    for part, members in zip(parts, (files[::2], files[1::2]), strict=True):
        with zipfile.ZipFile(part, "w") as archive:
            for path in members:
                archive.write(path, f"vtab-1k/{path.relative_to(copy).as_posix()}")
    return parts
