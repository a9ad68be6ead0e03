"""Origins of weights that an earlier plan has loaded, so that a plan with nothing to do needs no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from shipbench.backbones import RANDOM, Origin
from shipbench.runtime.cache import cache_dir
from shipbench.runtime.files import atomic_path
from shipbench.runtime.version import VERSION, git_commit
from shipbench.settings import canonical_sha256


def remembered_origin(name: str, checkpoint: str | None, image_size: int | None, load: Callable[[], Origin]) -> Origin:
    """Return the origin of a backbone's weights from the cache, or else from ``load``, and keep it there.

    An entry names all that decides an origin: the code, the release of torch and timm, and the state of the checkpoint
    file or the commit of the model hub. Weights of which that is unknown are loaded each time.
    """
    weights = _weights(name, checkpoint)
    if weights is None:
        return load()
    code = [VERSION, git_commit(), version("torch"), version("timm")]
    subject = {"name": name, "image_size": image_size, "weights": weights, "code": code}
    path = cache_dir("origins") / f"{canonical_sha256(subject)[:32]}.json"
    origin = _read(path, subject)
    if origin is None:
        origin = load()
        if weights == _weights(name, checkpoint):
            _write(path, subject, origin)
    return origin


def _weights(name: str, checkpoint: str | None) -> list[str | int] | None:
    """Return what changes with the weights, or None if that is unknown."""
    if checkpoint == RANDOM:
        return [RANDOM]
    try:
        if checkpoint is None:
            return ["hub", (_hub_cache() / f"models--timm--{name}" / "refs" / "main").read_text(encoding="utf-8")]
        path = Path(checkpoint).resolve(strict=True)
        status = path.stat()
    except (OSError, UnicodeDecodeError, RuntimeError):
        # The last one is pathlib's, where a user has no home folder, as in some containers.
        return None
    return [str(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _hub_cache() -> Path:
    """Return the folder in which the hub's client keeps models, without the time to import it."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")


def _read(path: Path, subject: Mapping[str, Any]) -> Origin | None:
    """Return the origin in a file, or None if the file is missing, damaged or of other weights."""
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        if entry["sha256"] != canonical_sha256([subject, entry["origin"]]):
            return None
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in entry["origin"].items()
        }
        return Origin(**values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(path: Path, subject: Mapping[str, Any], origin: Origin) -> None:
    values = json.loads(json.dumps(asdict(origin)))
    entry = {"subject": subject, "origin": values, "sha256": canonical_sha256([subject, values])}
    # A failed write (a full disk) only makes the next plan load the weights again.
    with suppress(OSError), atomic_path(path) as temporary:
        temporary.write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")
