"""The keys of a study's parts, and what becomes of them in specs, searches and follow-ups."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from shipbench import RunSpec
from shipbench.errors import InputError
from shipbench.planning.study.file import EvaluatePart, read_study
from shipbench.planning.study.follow_ups import request_follow_up, with_images
from shipbench.planning.study.parts import request
from tests.planning.test_study import BASE, grid_of, written
from tests.tasks.pictures import image_folder


def test_every_key_of_a_part_reaches_its_runs(tmp_path: Path) -> None:
    keys = """
    tasks = "cifar100"
    seeds = [3, 4]
    shots = 2
    recipe = "published"
    backbone = "vit_tiny_patch16_224"
    checkpoint = "random"
    precision = "bf16"
    epochs = 7
    set = { drop_path = 0.125 }
    """
    text = f"""
    [[run]]
    methods = "ship"
    {keys}
    [[ablate]]
    switches = "no-hierarchy"
    {keys}
    [[tune]]
    methods = "ship"
    axes.prompt_length = [1, 5]
    {keys}
    """
    planned = request(read_study(written(tmp_path, text)), BASE, None, without_data=True).parts
    assert [len(part.specs) for part in planned] == [2, 4, 2]
    for part in planned:
        protocol = "tuning" if part.searches else "final"
        for spec in [*part.specs, *part.tested_specs]:
            assert (spec.task, spec.shots, spec.recipe, spec.precision) == ("cifar100", 2, "published", "bf16")
            assert (spec.backbone, spec.checkpoint) == ("vit_tiny_patch16_224", "random")
            assert (spec.resolved.recipe.epochs, spec.resolved.recipe.drop_path) == (7, 0.125)
        assert {spec.protocol for spec in part.specs} == {protocol}
        assert [spec.seed for spec in part.tested_specs][:: 2 if part.part.kind == "ablate" else 1] == [3, 4]


def test_what_an_ablation_varies(tmp_path: Path) -> None:
    text = """
    [[ablate]]
    tasks = "dtd"
    switches = "no-hierarchy,no-matching-loss"
    mode = "{mode}"
    sweep.prompt_length = [1, 5]
    product = {product}
    """
    found = {}
    for mode, product in (("all", "true"), ("all", "false"), ("add-one-in", "false")):
        (part,) = grid_of(written(tmp_path, text.format(mode=mode, product=product))).request.parts
        found[mode, product] = sorted(
            (spec.resolved.config["prompt_length"], spec.resolved.switches) for spec in part.specs
        )
    sets = ["", "no-hierarchy", "no-hierarchy+no-matching-loss", "no-matching-loss"]
    swept = [(1, ""), (5, "")]
    assert found["all", "true"] == [(length, names) for length in (1, 5) for names in sets]
    assert found["all", "false"] == [(1, ""), (5, ""), *((10, names) for names in sets)]
    assert found["add-one-in", "false"] == [*swept, *((10, names) for names in ("", sets[2], sets[3]))]


def test_the_seeds_and_the_searches_of_a_tuning(tmp_path: Path) -> None:
    text = "[[tune]]\ntasks = 'dtd,svhn'\nmethods = 'linear'\naxes.lr = [0.1, 0.2]\nseeds = [3, 1]\nshots = [1, 2]\n"
    found = {}
    for keys in ("", "common = true", "tuning_seeds = '7-8'", "choose_only = true"):
        (part,) = request(read_study(written(tmp_path, text + keys)), BASE, None, without_data=True).parts
        assert {search.points[0].specs[0].shots for search in part.searches} == {1, 2}
        assert {spec.seed for spec in part.specs} == set(part.tuning_seeds)
        found[keys] = (len(part.searches), part.tuning_seeds, part.final_seeds)
    assert found == {
        "": (4, (3,), (3, 1)),
        "common = true": (2, (3,), (3, 1)),
        "tuning_seeds = '7-8'": (4, (7, 8), (3, 1)),
        "choose_only = true": (4, (3,), ()),
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[run]]\nmethods = 'linear'\ntasks = ','", "tasks is empty; name a suite"),
        ("[[run]]\nmethods = 'linear'\ntasks = 'dtd'\nshots = 0", "shots '0' is not a list"),
        ("[[run]]\nmethods = 'linear'\ntasks = 'dtd'\nset = { 'ship.lr' = 1 }", "set ship.lr: method 'ship'"),
        ("[[ablate]]\ntasks = 'dtd'\nswitches = ','", "switches is empty; name switches, as in switches no-hierarchy"),
        ("[[ablate]]\ntasks = 'dtd'\nproduct = true", "product combines sweeps; give at least one with sweep"),
        ("[[ablate]]\ntasks = 'dtd'\nmethod = 'linear'\nshots = 'x'\n", "shots 'x' is not a list"),
        ("[[tune]]\nmethods = 'linear'\ntasks = 'dtd'\ngrid = 'x'", "grid: linear has no grid 'x'"),
    ],
)
def test_a_refusal_names_the_key_and_not_the_option_of_a_command(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError) as refused:
        request(read_study(written(tmp_path, text)), BASE, None, without_data=True)
    assert f" of {tmp_path / 'paper.toml'}: {words}" in str(refused.value)


def test_images_of_a_follow_up_are_a_test_split_or_all_that_there_are(tmp_path: Path) -> None:
    image_folder(tmp_path / "whole", {"": (10, 10, 10)})
    image_folder(tmp_path / "few", {"": (1, 1, 1)})
    image_folder(tmp_path / "split", {"train": (4, 4, 4), "test": (1, 2, 2)})
    # A run on other images has seen neither copy.
    shutil.copyfile(tmp_path / "split/train/ant/0.png", tmp_path / "split/test/ant/0.png")
    for name, count in (("whole", 30), ("few", 3), ("split", 5)):
        part = EvaluatePart(name="x", of="a", on=f"folder:{tmp_path / name}")
        opened = with_images(request_follow_up(part, [RunSpec("linear", "dtd")]), None)
        assert (opened.num_images, len(opened.fingerprint)) == (count, 64), name
