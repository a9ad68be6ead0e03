"""Every sample data set is read as its description says."""

from __future__ import annotations

from typing import Any

import pytest

from shipbench.data.formats.csv_table import CsvTable
from shipbench.data.formats.hub_dataset import HubDataset
from shipbench.data.formats.image_folder import ImageFolder
from shipbench.data.images import decode
from shipbench.data.listings import ListedSource
from shipbench.errors import InputError
from tests.data.formats.samples import expected, samples
from tests.data.formats.trees import sizes

SOURCES: dict[str, tuple[type[ListedSource], dict[str, Any]]] = {
    "fgvc/CUB_200_2011": (ImageFolder, {}),
    "fgvc/nabirds": (ImageFolder, {}),
    "fgvc/StanfordCars": (ImageFolder, {}),
    "imagefolder_three": (ImageFolder, {}),
    "imagefolder_two": (ImageFolder, {}),
    "imagefolder_names": (ImageFolder, {}),
    "coop/oxford_flowers": (ImageFolder, {}),
    "noah_fewshot/oxford_flowers": (ImageFolder, {}),
    "csv_with_split": (CsvTable, {}),
    "csv_files": (CsvTable, {}),
    "hf_parquet": (HubDataset, {"label_column": "fine_label"}),
    "hf_metadata": (HubDataset, {}),
    "hf_metadata_jsonl": (HubDataset, {}),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_sample_is_read_as_described(name: str) -> None:
    facts = expected(name)
    facts = facts.get("with_choice", facts)
    kind, options = SOURCES[name]
    listing = kind().list(name, samples(), options)
    assert len(listing.classes) == facts["classes"]
    assert sizes(listing) == {role: facts[role] for role in ("train", "val", "test") if facts[role]}
    if "class_names" in facts:
        assert list(listing.classes) == facts["class_names"]
    for entries in listing.splits.values():
        for entry in entries:
            image = listing.images.read(entry.path)
            assert isinstance(image, bytes)
            assert decode(image, entry.path).size[0] > 0


def test_a_flat_sample_has_training_images_only() -> None:
    facts = expected("imagefolder_flat")
    listing = ImageFolder().list("imagefolder_flat", samples(), {})
    assert list(listing.classes) == facts["class_names"]
    assert sizes(listing) == {"train": facts["images"]}
    assert listing.notes == ("skipped 1 file that is not an image",)


def test_a_broken_sample_names_the_missing_image() -> None:
    with pytest.raises(InputError, match=r"1 image that .* lists does not exist .*: jpg/image_00007\.jpg"):
        ImageFolder().list("fgvc_broken/OxfordFlower", samples(), {})


def test_two_class_labels_ask_for_a_column() -> None:
    with pytest.raises(InputError, match=r"label \(fine_label, coarse_label\); .* label_column = \"fine_label\""):
        HubDataset().list("hf_parquet", samples(), {})
