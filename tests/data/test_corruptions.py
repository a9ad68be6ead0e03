"""Corruptions are seeded by image and get worse with their severity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor

from shipbench.data.corruptions import RULES, STRENGTHS, Corruption, parse_corruptions
from shipbench.errors import InputError


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Three copies of a photograph, (3, 224, 224, 3)."""
    photograph = Image.fromarray(load_sample_image("china.jpg")).resize((224, 224))
    return torch.from_numpy(np.array(photograph)).expand(3, -1, -1, -1).clone()


def distance(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other.float()).abs().mean())


@pytest.mark.parametrize("name", STRENGTHS)
def test_each_severity_is_worse_than_the_one_before_and_keeps_the_shape(name: str, images: Tensor) -> None:
    places = torch.arange(3)
    corrupted = [Corruption(name, severity)(images, places) for severity in (1, 2, 3, 4, 5)]
    assert all(each.shape == images.shape and each.dtype == torch.uint8 for each in corrupted)
    distances = [distance(images, each) for each in corrupted]
    assert distances == sorted(distances)
    assert distances[0] > 0.5
    assert distances[-1] > 1.2 * distances[0]


def test_the_noise_of_an_image_depends_on_its_place_alone(images: Tensor) -> None:
    corruption = Corruption("gaussian-noise", 3)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    together = corruption(images, torch.tensor([4, 7, 9]))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(corruption(images[:1], torch.tensor([9]))[0], together[2])
    assert not torch.equal(together[0], together[1])


def test_the_seed_of_an_image_is_pinned() -> None:
    """Another seed is other noise under the id of an evaluation that is stored already; raise ``RULES`` with it."""
    assert (RULES, Corruption("gaussian-noise", 3)._seed(7)) == (1, 64527695851931944)


def test_noise_and_blur_have_the_strengths_that_the_table_says() -> None:
    grey = torch.full((1, 224, 224, 3), 128, dtype=torch.uint8)
    noise = Corruption("gaussian-noise", 1)(grey, torch.tensor([0])).float() / 255
    assert float(noise.std()) == pytest.approx(0.08, rel=0.02)
    # A point becomes the Gaussian itself: its peak in the plane is 1 / (2 pi sigma^2).
    point = torch.zeros((1, 224, 224, 3), dtype=torch.uint8)
    point[:, 112, 112] = 255
    peak = Corruption("blur", 1)(point, torch.tensor([0])).max().item() / 255
    assert peak == pytest.approx(1 / (2 * torch.pi), rel=0.05)
    half_as_wide = point[:, 56:168, 56:168]
    peak = Corruption("blur", 4)(half_as_wide, torch.tensor([0])).max().item() / 255
    assert peak == pytest.approx(1 / (2 * torch.pi * 2**2), rel=0.1)


def test_severities_scale_the_same_noise_and_bright_pixels_stay_bright() -> None:
    grey, white = (torch.full((1, 64, 64, 3), value, dtype=torch.uint8) for value in (128, 255))
    noises = [Corruption("gaussian-noise", severity)(grey, torch.tensor([3])).float() - 128 for severity in (1, 2)]
    assert distance(noises[0] / 0.08, noises[1] / 0.12) < 0.05 * 255
    assert Corruption("gaussian-noise", 1)(white, torch.tensor([3])).min() > 128


def test_the_documented_strengths_are_those_in_use() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "evaluate.md").read_text(encoding="utf-8")
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in page.splitlines() if "|" in line]
    table = {row[0]: tuple(map(float, row[2:])) for row in rows if row[0] in STRENGTHS}
    assert table == STRENGTHS


def test_lists_are_read_as_written() -> None:
    assert parse_corruptions("jpeg, blur,jpeg", "4-5") == (
        *(Corruption("jpeg", 4), Corruption("jpeg", 5), Corruption("blur", 4), Corruption("blur", 5)),
    )
    assert len(parse_corruptions("blur,all", "1-5")) == 5 * len(STRENGTHS)
    for names, severities in (("", "1"), ("blur", ""), ("blur", "0"), ("blur", "5-1"), ("blur", "1-99999999999")):
        with pytest.raises(InputError):
            parse_corruptions(names, severities)
