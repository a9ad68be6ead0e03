"""How fast images of one's own become inputs: ``python -m tests.data.speed [--images N] [--repeats N]``.

Compares the first load of a folder of JPEG files (listing, hashing, decoding, resizing, storing) with decoding alone on
as many threads, and times what a second command does between its imports and its first step.
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
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from shipbench.data import load
from shipbench.data.parallel import map_items
from shipbench.tasks import Task, get_task

_SECOND_COMMAND = """
import sys, time
import timm, torch
import shipbench, shipbench.runs.run
from shipbench.events import EpochDone
spec = shipbench.RunSpec("vpt-shallow", "folder:" + sys.argv[1], overrides=("epochs=1", "image_size=" + sys.argv[2]),
                         backbone="test_vit", checkpoint="random", device="cpu")
start = time.perf_counter()
def listen(event):
    if isinstance(event, EpochDone):
        print(time.perf_counter() - start - event.train_seconds)
shipbench.run(spec, listener=listen)
"""


def main() -> None:
    """Print the images per second of both, their ratio, and the seconds of the second command as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=256, help="pixels of the files")
    parser.add_argument("--image-size", type=int, default=224, help="pixels of the inputs")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "images"
        files = _write(folder, options.images, options.side)
        seconds: dict[str, list[float]] = {"decoding alone": [], "first load": [], "second load": []}
        for repeat in range(options.repeats):
            os.environ["SHIPBENCH_CACHE"] = str(Path(root) / f"cache-{repeat}")
            task = get_task(f"folder:{folder}")
            for name in seconds:
                work = _decode(files) if name == "decoding alone" else _load(task, options.image_size)
                seconds[name].append(_timed(work))
        _, *later = (_second_command(folder, options.image_size) for _ in range(options.repeats + 1))
    rates = {name: options.images / statistics.median(values) for name, values in seconds.items()}
    ratio = statistics.median(
        alone / whole for alone, whole in zip(seconds["decoding alone"], seconds["first load"], strict=True)
    )
    print(json.dumps({"images/s": rates, "first load / decoding alone": ratio, "seconds to the first step": later}))


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


def _decode(files: list[Path]) -> Callable[[], object]:
    def decode(file: Path) -> None:
        with Image.open(file) as image:
            image.convert("RGB")

    return lambda: list(map_items(decode, files, "decoding", None))


def _load(task: Task, image_size: int) -> Callable[[], object]:
    return lambda: load(task, image_size=image_size, root=None)


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _second_command(folder: Path, image_size: int) -> float:
    line = [sys.executable, "-c", _SECOND_COMMAND, str(folder), str(image_size)]
    return float(subprocess.run(line, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
