"""Files of the official repositories, as their training writes them, and damaged ones."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shipbench_baselines.vpt
import torch
from shipbench_baselines.full import FullModel
from torch import Tensor

from shipbench.adapting import AdaptedModel, Adapter
from shipbench.errors import InputError
from shipbench.methods.ship import Ship, load_official_checkpoint
from tests.parity import golden
from tests.parity.adapters import official_vpt_state

LEVELS = [0, 2, 4, 6, 8, 11]


def ship_state() -> dict[str, Tensor]:
    return golden.under("state", golden.tensors("ship_tiny"))


def load_ship(source: Any, **options: Any) -> Ship:
    bank = golden.tensors("ship_tiny")["feature_bank"]
    return load_official_checkpoint(source, **{"levels": LEVELS, "prototypes": bank, "num_heads": 4} | options)


def load_vpt(source: Any, **options: Any) -> torch.nn.Module:
    return shipbench_baselines.vpt.load_official_checkpoint(source, **{"num_heads": 4} | options)


def training_file(path: Path, state: dict[str, Tensor]) -> Path:
    """Write a file as official training writes it: the model among much else."""
    arguments = argparse.Namespace(lr=5e-4, output_dir=Path("saves"))
    others = {"optimizer": {"state": {}}, "lr_scheduler": {"last_epoch": 3}, "epoch": 3, "scaler": {}}
    torch.save({"model": state, **others, "args": arguments}, path)
    return path


def test_ship_reads_the_file_that_official_training_writes(tmp_path: Path) -> None:
    path = training_file(tmp_path / "checkpoint.pth", ship_state())
    images = golden.tensors("ship_tiny")["images"].float()
    assert torch.equal(load_ship(path)(images), load_ship(ship_state())(images))


def test_of_two_sets_the_averaged_one_is_read_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": {k: v + 1 for k, v in ship_state().items()}, "model_ema": ship_state()}, tmp_path / "c.pth")
    images = golden.tensors("ship_tiny")["images"].float()
    assert torch.equal(load_ship(tmp_path / "c.pth")(images), load_ship(ship_state())(images))
    assert capsys.readouterr().err == "c.pth: using the weights under model_ema, not those under model\n"


def test_vpt_reads_a_model_among_other_things(tmp_path: Path) -> None:
    path = training_file(tmp_path / "checkpoint.pth", official_vpt_state("deep"))
    images = golden.tensors("vpt_tiny")["images"].float()
    assert torch.equal(load_vpt(path)(images), load_vpt(official_vpt_state("deep"))(images))


def test_prompts_alone_are_refused_by_their_name(tmp_path: Path) -> None:
    prompts = {"shallow_prompt": np.zeros((1, 4, 48), np.float32), "deep_prompt": np.zeros((11, 4, 48), np.float32)}
    torch.save(prompts, tmp_path / "prompt_ep100.pth")
    with pytest.raises(InputError, match=r"only prompts in .*prompt_ep100\.pth \(deep_prompt, shallow_prompt\)"):
        load_vpt(tmp_path / "prompt_ep100.pth")


SHIP_SHAPES = {
    "compound_prompts_visual.3": (5, 48),
    "semantic_share_prompt": (10, 47),
    "attribute_prompt": (48,),
    "head.weight": (5, 47),
    "head.bias": (),
    "patch_embed.proj.weight": (48, 768),
    "pos_embed": (1, 196, 48),
    "blocks.0.mlp.fc1.weight": (192,),
}


@pytest.mark.parametrize("key", SHIP_SHAPES)
def test_another_shape_in_a_ship_checkpoint_is_named(key: str) -> None:
    state = ship_state()
    assert key in state
    with pytest.raises(InputError, match=r"official SHIP checkpoint|levels of this checkpoint") as caught:
        load_ship(state | {key: torch.zeros(SHIP_SHAPES[key])})
    assert "expected" in str(caught.value) or "unequal" in str(caught.value)


@pytest.mark.parametrize("key", ["compound_prompts_visual.0", "semantic_share_prompt", "attribute_prompt"])
def test_prompts_of_length_0_in_a_ship_checkpoint_are_called_empty(key: str) -> None:
    state = ship_state()
    with pytest.raises(InputError, match=rf"official SHIP checkpoint: {key} is \(.*0, 48\), which is empty"):
        load_ship(state | {key: state[key][..., :0, :]})


VPT_SHAPES = {
    "enc.transformer.prompt_embeddings": (1, 4, 47),
    "enc.transformer.deep_prompt_embeddings": (11, 3, 48),
    "enc.transformer.embeddings.position_embeddings": (1, 196, 48),
    "head.last_layer.weight": (5,),
    "head.last_layer.bias": (6,),
}


@pytest.mark.parametrize("key", VPT_SHAPES)
def test_another_shape_in_a_vpt_checkpoint_is_named(key: str) -> None:
    state = official_vpt_state("deep")
    assert key in state
    with pytest.raises(InputError, match=r"official VPT checkpoint.* expected"):
        load_vpt(state | {key: torch.zeros(VPT_SHAPES[key])})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_heads": 0}, "num_heads is 0; it must be 1 or more"),
        ({"num_heads": -4}, "num_heads is -4; it must be 1 or more"),
        ({"num_heads": 5}, "does not divide"),
        ({"patch_size": 0}, "patch_size is 0; it must be 1 or more"),
        ({"image_size": 225}, "not a multiple"),
        ({"image_size": 384}, "pos_embed is"),
        ({"patch_size": 32}, "expected"),
    ],
)
def test_sizes_that_are_not_possible(options: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_ship(ship_state(), **options)
    with pytest.raises(InputError, match=words):
        load_vpt(official_vpt_state("deep"), **options)


def test_images_of_another_size_are_refused() -> None:
    """The official code computes something else without a word."""
    ship = load_ship(ship_state())
    adapted, full = AdaptedModel(ship.backbone, 7, Adapter()), FullModel(ship.backbone, 7)
    for model in (ship, load_vpt(official_vpt_state("shallow")), adapted, full):
        with pytest.raises(InputError, match="images have 112 x 96 pixels, but the backbone takes 224 x 224"):
            model(torch.zeros(1, 3, 112, 96))


@pytest.mark.parametrize("key", ["attribute_prompt", "head.bias", "blocks.5.norm1.weight"])
def test_values_that_are_not_finite_are_refused(key: str) -> None:
    state = ship_state()
    damaged = state[key].clone()
    damaged.view(-1)[0] = float("nan")
    with pytest.raises(InputError, match=f"{key} has 1 of .* NaN or infinite"):
        load_ship(state | {key: damaged})


def test_a_bank_that_is_not_finite_is_refused() -> None:
    bank = golden.tensors("ship_tiny")["feature_bank"].clone()
    bank[0, 0] = float("nan")
    with pytest.raises(InputError, match="prototypes has 1 of"):
        load_ship(ship_state(), prototypes=bank)


def test_whole_numbers_in_an_official_checkpoint_are_unexpected() -> None:
    with pytest.raises(InputError, match="unexpected num_batches_tracked"):
        load_ship(ship_state() | {"num_batches_tracked": torch.tensor(3)})
