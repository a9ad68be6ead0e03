"""How fast images of one's own become inputs: ``python -m tests.data.speed [--images N] [--repeats N]``.

Compares the first load of a folder of JPEG files (listing, hashing, decoding, resizing, storing) with decoding alone,
and with decoding and resizing, on as many threads, and times what a second command does between its imports and its
first step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from shipbench.data import load
from shipbench.data.framing import resize
from shipbench.data.parallel import map_items
from shipbench.tasks import get_task

FIRST = "first load"
_SECOND_COMMAND = """
import os, sys, time
import timm, torch
import shipbench, shipbench.runs.run
from shipbench.events import EpochDone
spec = shipbench.RunSpec("vpt-shallow", "folder:" + sys.argv[1], overrides=("epochs=30", "image_size=" + sys.argv[2]),
                         backbone="test_vit", checkpoint="random", device="cpu")
start = time.perf_counter()
def listen(event):
    if isinstance(event, EpochDone):
        # No evaluation follows the first of many epochs.
        print(time.perf_counter() - start - event.train_seconds, flush=True)
        os._exit(0)
shipbench.run(spec, listener=listen)
"""


def main() -> None:
    """Print the images per second of each, the ratios, and the seconds of the second command as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=256, help="pixels of the files")
    parser.add_argument("--image-size", type=int, default=224, help="pixels of the inputs")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "images"
        files = _write(folder, options.images, options.side)
        task = get_task(f"folder:{folder}")
        whole = partial(load, task, image_size=options.image_size, root=None)
        works = {
            "decoding": partial(_on_all_cores, _decoded, files),
            "decoding and resizing": partial(_on_all_cores, partial(_resized, options.image_size), files),
            FIRST: whole,
            "second load": whole,
        }
        seconds: dict[str, list[float]] = {name: [] for name in works}
        for repeat in range(options.repeats):
            os.environ["SHIPBENCH_CACHE"] = str(Path(root) / f"cache-{repeat}")
            for name, work in works.items():
                seconds[name].append(_timed(work))
        _, *later = (_second_command(folder, options.image_size) for _ in range(options.repeats + 1))
    rates = {name: options.images / statistics.median(values) for name, values in seconds.items()}
    ratios = {
        name: statistics.median(part / whole for part, whole in zip(seconds[name], seconds[FIRST], strict=True))
        for name in ("decoding", "decoding and resizing")
    }
    print(json.dumps({"images/s": rates, f"{FIRST} / part of it": ratios, "seconds to the first step": later}))


def _write(folder: Path, count: int, side: int) -> list[Path]:
    """Write blurred noise, which compresses about as photographs do, four fifths of it for training."""
    generator = np.random.default_rng(0)
    files = []
    for index in range(count):
        file = folder / ("train" if index % 5 else "test") / f"class {index % 9}" / f"{index}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8))
        noise.filter(ImageFilter.GaussianBlur(2)).save(file, quality=95)
        files.append(file)
    return files


def _on_all_cores(function: Callable[[Path], object], files: list[Path]) -> None:
    for _ in map_items(function, files, "decoding", None):
        pass


def _decoded(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")


def _resized(side: int, file: Path) -> NDArray[np.uint8]:
    return resize(_decoded(file), side)


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _second_command(folder: Path, image_size: int) -> float:
    line = [sys.executable, "-c", _SECOND_COMMAND, str(folder), str(image_size)]
    return float(subprocess.run(line, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
