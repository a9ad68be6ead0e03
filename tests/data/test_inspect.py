"""The summary of a task and its contact sheet."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shipbench.data import fingerprint
from shipbench.data.inspection.contact_sheet import CELL, contact_sheet, write_contact_sheet
from shipbench.data.inspection.summary import _moments, summarise
from shipbench.data.sources import open_source
from shipbench.data.types import NativeSplit
from shipbench.errors import InputError
from shipbench.tasks import get_task
from tests.data.builders import encode, pixels_of

DTD = get_task("dtd")


def test_sizes_and_moments_describe_the_training_images(dtd: Path) -> None:
    wide = np.zeros((5, 40, 3), np.uint8)
    wide[..., 0] = 255
    (dtd / "dtd/images/train800/000000.png").write_bytes(encode(wide))
    summary = summarise(DTD, dtd)
    images = [wide, *(pixels_of("dtd", "train800", i, i, (12, 10)) for i in range(1, 8))]
    images += [pixels_of("dtd", "val200", i, 8 + i, (12, 10)) for i in range(2)]
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]) / 255
    assert np.allclose(summary.mean, pixels.mean(axis=0), atol=1e-12)
    assert np.allclose(summary.std, pixels.std(axis=0), atol=1e-9)
    assert (summary.smallest, summary.largest) == ((12, 10), (40, 5))
    assert (summary.fingerprint, summary.image_format) == (fingerprint(DTD, dtd), "png")


def test_a_photograph_takes_no_memory_beside_its_pixels() -> None:
    photograph = Image.new("RGB", (1000, 1000), (0, 51, 255))
    tracemalloc.start()
    moments = _moments(photograph)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.allclose((moments.sums, moments.squares), np.multiply(1e6, ((0, 0.2, 1), (0, 0.04, 1))), rtol=1e-12)
    assert peak < 10**6


def test_counts_are_per_class_and_split(dtd: Path) -> None:
    counts = {name: values.tolist() for name, values in summarise(DTD, dtd).counts.items()}
    assert list(counts) == ["train800", "val200", "train", "test"]
    assert counts["train800"] == [1] * 8 + [0] * 39
    assert counts["val200"] == [0] * 8 + [1] * 2 + [0] * 37
    assert counts["train"] == [1] * 10 + [0] * 37
    assert counts["test"] == [1] * 6 + [0] * 41


def test_the_sheet_shows_each_class_in_its_row() -> None:
    labels = np.array([0, 2, 0, 0, 1])
    colours = [(10 * i + 50, 0, 0) for i in range(5)]
    split = NativeSplit(labels, lambda index: Image.new("RGB", (9, 5), colours[index]))
    sheet = np.asarray(contact_sheet(split, ["0", "1", "2", "3"], per_class=2))
    tops = [(sheet == colour).all(axis=2).nonzero() for colour in colours]
    assert [len(rows) for rows, _ in tops] == [CELL * CELL, CELL * CELL, CELL * CELL, 0, CELL * CELL]
    first, third, again, _, second = ((rows.min(), columns.min()) if len(rows) else None for rows, columns in tops)
    assert first[0] == again[0]
    assert first[1] < again[1]
    assert len({first, second, third}) == 3


def test_the_sheet_is_written_as_png(dtd: Path, tmp_path: Path) -> None:
    file = tmp_path / "sheets" / "dtd.png"
    write_contact_sheet(DTD, dtd, file)
    with Image.open(file) as image:
        assert image.format == "PNG"
        split = open_source(DTD, dtd, ("train",)).open_split("train")
        drawn = contact_sheet(split, [str(label) for label in range(47)], 4)
        assert np.array_equal(np.asarray(image), np.asarray(drawn))
    assert [path.name for path in file.parent.iterdir()] == ["dtd.png"]


def test_a_sheet_that_is_no_png_or_cannot_be_written_is_refused(dtd: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dtd\.jpg is not a PNG file name; end it in \.png"):
        write_contact_sheet(DTD, dtd, tmp_path / "dtd.jpg")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written to"):
        write_contact_sheet(DTD, dtd, tmp_path / "file" / "dtd.png")
