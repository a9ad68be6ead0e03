"""Write the handwritten digits of scikit-learn as a folder of small PNG files, one folder per class.

    python write_digits.py FOLDER

The task file beside this script reads the folder ``digits``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PER_CLASS = 40


def write_digits(folder: Path) -> None:
    """Write the first 40 images of each digit below ``folder``, 8 x 8 pixels of grey."""
    digits = load_digits()
    for label, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, pixels in enumerate(digits.images[digits.target == label][:PER_CLASS]):
            image = Image.fromarray((pixels * 255 / 16).astype(np.uint8))
            image.save(folder / name / f"{number:02}.png")


if __name__ == "__main__":
    write_digits(Path(sys.argv[1]))
