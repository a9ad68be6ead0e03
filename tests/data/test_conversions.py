"""Images that are not stored as RGB: what their conversion changes, and where it is said."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shipbench.data import load
from shipbench.data.conversions import conversion_notes, conversion_of
from shipbench.data.images import decode_photograph, to_rgb
from shipbench.data.inspection.summary import summarise
from shipbench.data.inspection.verify import verify
from shipbench.tasks import Task, get_task
from tests.conftest import Shipbench
from tests.data.builders import vtab_tree
from tests.tasks.pictures import image_folder

GLASS = (10, 200, 30, 128)


def stored(mode: str, colour: object, kind: str = "PNG", **options: object) -> str:
    """Return what decoding a stored image of one colour says of its conversion."""
    stream = io.BytesIO()
    Image.new(mode, (3, 2), colour).save(stream, kind, **options)
    return conversion_of(decode_photograph(stream.getvalue(), "image"))


@pytest.mark.parametrize(
    ("mode", "colour", "kind", "options", "conversion"),
    [
        ("RGB", (1, 2, 3), "PNG", {}, ""),
        ("RGB", (1, 2, 3), "JPEG", {}, ""),
        ("RGBA", GLASS, "PNG", {}, "transparency"),
        ("RGBA", GLASS, "WEBP", {"lossless": True}, "transparency"),
        ("RGBA", GLASS, "TIFF", {}, "transparency"),
        ("RGBA", (1, 2, 3, 255), "PNG", {}, "with an opaque alpha channel"),
        ("LA", (7, 0), "PNG", {}, "transparency"),
        ("LA", (7, 255), "PNG", {}, "grey"),
        ("P", 0, "PNG", {"transparency": 0}, "transparency"),
        ("P", 0, "PNG", {"transparency": bytes([255, 0])}, "with a palette"),
        ("P", 0, "GIF", {"transparency": 0}, "transparency"),
        ("P", 0, "PNG", {}, "with a palette"),
        ("RGB", (1, 2, 3), "PNG", {"transparency": (1, 2, 3)}, "transparency"),
        ("RGB", (1, 2, 3), "PNG", {"transparency": (1, 2, 4)}, ""),
        ("L", 7, "PNG", {"transparency": 7}, "transparency"),
        ("L", 7, "PNG", {"transparency": 300}, "grey"),
        ("L", 7, "PNG", {}, "grey"),
        ("1", 1, "PNG", {}, "grey"),
        ("1", 1, "PNG", {"transparency": 255}, "transparency"),
        ("I;16", 700, "PNG", {}, "grey"),
        ("CMYK", (0, 9, 9, 0), "JPEG", {}, "CMYK"),
        ("LAB", (9, 9, 9), "TIFF", {}, "LAB"),
    ],
)
def test_every_image_is_marked_with_what_its_conversion_changes(
    mode: str, colour: object, kind: str, options: dict[str, object], conversion: str
) -> None:
    assert stored(mode, colour, kind, **options) == conversion


def test_the_mark_is_on_the_converted_image_alone() -> None:
    image = Image.new("RGBA", (3, 2), GLASS)
    assert conversion_of(to_rgb(image)) == "transparency"
    assert not image.info


def test_conversions_are_counted_by_kind() -> None:
    kinds = [*["transparency"] * 2, *["grey"] * 1200, "CMYK", "CMYK", "with a palette", "", ""]
    assert conversion_notes(kinds) == [
        "2 images have transparency, which is dropped",
        "images converted to RGB: 1,200 grey, 2 CMYK, 1 with a palette",
    ]
    assert conversion_notes(["transparency", ""]) == ["1 image has transparency, which is dropped"]
    assert not conversion_notes([""])


@pytest.fixture
def cut_outs(tmp_path: Path, private_cache: Path) -> Task:
    """A task with two transparent images in train and one in test, and a grey one in train."""
    root = image_folder(tmp_path / "bugs", {"train": (3, 3, 3), "test": (1, 1, 1)})
    for number, path in enumerate(("train/ant/0.png", "train/bee/0.png", "test/ant/0.png")):
        Image.new("RGBA", (20, 14), (number, 0, 0, 128)).save(root / path)
    Image.new("L", (20, 14), 9).save(root / "train" / "wasp" / "0.png")
    return get_task(f"folder:{root}")


def test_verify_and_inspect_say_what_is_dropped(cut_outs: Task, shipbench: Shipbench) -> None:
    (report,) = verify(None, tasks=[cut_outs])
    assert report.ok
    assert report.notes == ("3 images have transparency, which is dropped", "images converted to RGB: 1 grey")
    notes = ("2 training images have transparency, which is dropped", "training images converted to RGB: 1 grey")
    assert summarise(cut_outs, None).conversions == notes
    outcome = shipbench("data", "inspect", f"folder:{cut_outs.location}")
    assert "\n".join(notes) in outcome.out


def test_a_command_that_decodes_says_it_once(cut_outs: Task, capsys: pytest.CaptureFixture[str]) -> None:
    load(cut_outs, image_size=8, root=None)
    said = capsys.readouterr().err
    assert "bugs train: 2 decoded images have transparency, which is dropped\n" in said
    assert "bugs test: 1 decoded image has transparency, which is dropped\n" in said
    assert "grey" not in said
    load(cut_outs, image_size=8, root=None)
    assert "transparency" not in capsys.readouterr().err


def test_grey_images_of_vtab_are_counted(tmp_path: Path, private_cache: Path) -> None:
    root = vtab_tree(tmp_path / "vtab", tasks=["dtd"])
    Image.fromarray(np.full((10, 12), 77, np.uint8)).save(root / "dtd/images/test/000000.png")
    (report,) = verify(root, tasks=[get_task("dtd")])
    assert "images converted to RGB: 1 grey" in report.notes
