"""Download a copy of VTAB-1k from a Hugging Face dataset repository and import it.

Repeating the command resumes an interrupted download. ``huggingface_hub`` deletes the partial file of an interrupted
process, so archives are streamed here, with the hub's request function, into a part file that survives.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from shipbench.data.acquisition.archives import is_archive
from shipbench.data.acquisition.importing import check_absent, import_archives
from shipbench.errors import InputError, ShipbenchError, one_line
from shipbench.runtime.cache import cache_dir
from shipbench.runtime.console import say
from shipbench.runtime.files import atomic_path, file_sha256, taking_turns
from shipbench.runtime.interrupts import settled
from shipbench.tasks.catalogue import VTAB

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

REPO = "XiN0919/VTAB-1k"
"""The dataset repository that the authors of V-PETL Bench link to: one zip of about 4.7 GB."""

RECORD = "fetched.json"

# Seconds before a dropped connection is opened again.
_PAUSE = 1.0


@dataclass(frozen=True)
class Fetched:
    """The origin of a copy: dataset repository, requested revision, the commit it resolved to, and imported tasks."""

    repo: str
    revision: str
    commit: str
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class _Remote:
    """A repository at one commit, with the names of its files."""

    repo: str
    commit: str
    endpoint: str | None
    files: tuple[str, ...]


def fetch(target: Path, *, repo: str = REPO, endpoint: str | None = None, revision: str = "main") -> Fetched:
    """Download ``repo`` at ``revision``, import its tasks into ``target`` and record the commit in ``fetched.json``.

    The hub is ``endpoint``, else ``HF_ENDPOINT``, else huggingface.co. The repository may hold archives or the task
    folders themselves. Raises ``ShipbenchError`` if the hub cannot be reached or a file does not match its announced
    SHA-256, ``InputError`` if ``target`` already holds a task, the disk has no room for the download, or that is not a
    copy of VTAB-1k.
    """
    hub = endpoint or os.environ.get("HF_ENDPOINT") or None
    check_absent(list(VTAB.tasks), target)
    # Two processes appending to one part file would corrupt it.
    lock = cache_dir("fetch") / f"{hashlib.sha256(os.fsencode(target.resolve())).hexdigest()[:32]}.lock"
    with taking_turns(lock, f"waiting for another process to fetch into {target}"):
        # Again, because the other process may have imported the tasks.
        check_absent(list(VTAB.tasks), target)
        return _fetch(target, repo, hub.rstrip("/") if hub else None, revision)


def _fetch(target: Path, repo: str, endpoint: str | None, revision: str) -> Fetched:
    target.parent.mkdir(parents=True, exist_ok=True)
    downloads = target.parent / f".{target.name}.download"
    try:
        remote = _look_up(repo, revision, endpoint)
        sources = _download(remote, downloads / remote.commit)
    except ShipbenchError:
        raise
    except Exception as error:
        # Each major version of the hub client raises the errors of a different HTTP library.
        reason = one_line(error).rstrip(".")
        raise ShipbenchError(
            f"cannot download {repo} from the hub: {reason}; try again to resume from {downloads}, "
            "or download it by hand and use 'shipbench data import'"
        ) from error
    names = import_archives(sources, target)
    fetched = Fetched(repo, revision, remote.commit, tuple(names))
    with settled():
        with atomic_path(target / RECORD) as temporary:
            temporary.write_text(json.dumps(asdict(fetched), indent=1) + "\n")
        shutil.rmtree(downloads, ignore_errors=True)
    return fetched


def _look_up(repo: str, revision: str, endpoint: str | None) -> _Remote:
    from huggingface_hub import HfApi

    info = HfApi(endpoint=endpoint).dataset_info(repo, revision=revision)
    if info.sha is None or not info.siblings:
        raise ShipbenchError(f"the dataset repository {repo} is empty at revision {revision!r}")
    return _Remote(repo, info.sha, endpoint, tuple(file.rfilename for file in info.siblings))


def _download(remote: _Remote, folder: Path) -> list[Path]:
    archives = [name for name in remote.files if is_archive(name)]
    if archives:
        return [
            _download_archive(remote, name, folder / f"{index}-{Path(name).name}")
            for index, name in enumerate(archives)
        ]
    return [_download_folder(remote, folder)]


def _download_folder(remote: _Remote, folder: Path) -> Path:
    from huggingface_hub import snapshot_download

    snapshot_download(
        remote.repo, repo_type="dataset", revision=remote.commit, local_dir=folder, endpoint=remote.endpoint
    )
    return folder


def _download_archive(remote: _Remote, name: str, place: Path) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(remote.repo, name, repo_type="dataset", revision=remote.commit, endpoint=remote.endpoint)
    described = get_hf_file_metadata(url)
    if place.is_file() and place.stat().st_size == described.size:
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f"{place.name}.part")
    _require_room(described, part, name)
    _append(url, described, part)
    _check(described, part, name)
    part.replace(place)
    return place


def _require_room(described: HfFileMetadata, part: Path, name: str) -> None:
    needed, free = (described.size or 0) - _size(part), shutil.disk_usage(part.parent).free
    if needed > free:
        raise InputError(
            f"{name} needs {needed / 1e9:.1f} GB more in {part.parent}, where {free / 1e9:.1f} GB are free; make room "
            "or name a folder on another disk with --to"
        )


def _append(url: str, described: HfFileMetadata, part: Path) -> None:
    """Append the rest of the archive to ``part``, reconnecting for as long as every dropped connection added bytes.

    Old versions of the hub client end a download at the first dropped connection.
    """
    have = _size(part)
    while described.size is None or have < described.size:
        if have:
            say(f"resuming {part.name.removesuffix('.part')} after {have / 1e6:.0f} MB")
        try:
            _stream(url, described, part, have)
            return
        except Exception:
            before, have = have, _size(part)
            if have == before:
                raise
        time.sleep(_PAUSE)


def _stream(url: str, described: HfFileMetadata, part: Path, have: int) -> None:
    from huggingface_hub.file_download import http_get

    with part.open("ab") as stream:
        http_get(
            described.location,
            stream,
            resume_size=have,
            headers=_headers(url, described.location),
            expected_size=described.size,
        )


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _headers(url: str, location: str) -> dict[str, str]:
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    headers: dict[str, str] = build_hf_headers()
    if urlsplit(url)[:2] != urlsplit(location)[:2]:
        # The hub's token must neither reach the storage host that the hub redirects to, nor travel unencrypted.
        headers.pop("authorization", None)
    return headers


def _check(described: HfFileMetadata, part: Path, name: str) -> None:
    announced = (described.etag or "").lower()
    if len(announced) != 64:
        # The tag of a large file is its SHA-256; that of a small one is a Git hash.
        checked = "nothing" if described.size is None else "only its size"
        say(f"the hub announces no SHA-256 of {name}; {checked} was checked")
    elif file_sha256(part) != announced:
        part.unlink()
        raise ShipbenchError(f"{name} arrived damaged (its SHA-256 differs from the announced one); fetch it again")
