"""Tasks and methods by the names that other harnesses give them."""

from __future__ import annotations

from pathlib import Path

import pytest

from shipbench.results.foreign.tasks import nearest_tasks, vtab_task
from tests.results.foreign.test_readers import NOAH_CONFIG, VTAB_LOG, reason_of, record_of
from tests.results.foreign.trees import imported, json_lines, osu_result, vpt_log, write


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("Oxford-Pet", "oxford_iiit_pet"),
        ('clevr(task="closest_object_distance")', "clevr_dist"),
        ("dSpr-Orient", "dsprites_ori"),
        ("snorb azim", "smallnorb_azi"),
        ("Caltech-101", "caltech101"),
        ("Flower102", "oxford_flowers102"),
        ("Clevr/count", "clevr_count"),
        ("Clevr/distance", "clevr_dist"),
        ("KITTI/distance", "kitti"),
        ("dSprites/location", "dsprites_loc"),
        ("dSprites/orientation", "dsprites_ori"),
        ("SmallNORB/azimuth", "smallnorb_azi"),
        ("SmallNORB/elevation", "smallnorb_ele"),
        *{
            "cifar100": "cifar100",
            "flowers102": "oxford_flowers102",
            "pet": "oxford_iiit_pet",
            "camelyon": "patch_camelyon",
            "retinopathy": "diabetic_retinopathy",
            "clevr_distance": "clevr_dist",
            "dsprites_position": "dsprites_loc",
            "dsprites_orientation": "dsprites_ori",
            "smallnorb_azimuth": "smallnorb_azi",
            "smallnorb_elevation": "smallnorb_ele",
            'dsprites(predicted_attribute="label_x_position",num_classes=16)': "dsprites_loc",
            'smallnorb(predicted_attribute="label_elevation")': "smallnorb_ele",
            "KITTI-Dist": "kitti",
        }.items(),
        ("cifar_aug_norm", None),
        ("clevr", None),
        ("resisc", None),
        ("torch/cifar100", None),
        ("cifar100-FS", None),
        ("cifar100/1k", None),
        ("oxford_flowers", None),
    ],
)
def test_task_names(name: str, task: str | None) -> None:
    assert vtab_task(name) == task


def test_nearest_task_names() -> None:
    assert nearest_tasks("smallnorb_azimut")[0] == "smallnorb_azi"
    assert len(nearest_tasks("x")) == 3


@pytest.mark.parametrize(
    ("name", "task", "place"),
    [
        ("dtd", "mine", ("mine", "", "")),
        ("cifar_aug_norm", "cifar", ("cifar100", "vtab-1k", "Natural")),
        ("dtd", "CUB", ("cub-200-2011", "fgvc", "FGVC")),
    ],
)
def test_the_name_of_a_task_decides_its_suite(
    name: str, task: str, place: tuple[str, str, str], tmp_path: Path
) -> None:
    osu_result(tmp_path / "osu", name, "lora", 60.0, 61.0)
    record = record_of(imported("osu", tmp_path / "osu", tmp_path / "results", task=task))
    assert (record.task, record.suite, record.group) == place


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({"TRANSFER_TYPE": "'linear'", "MLP_NUM": "2"}, "mlp-3"),
        ({"TRANSFER_TYPE": "'linear'", "MLP_NUM": "0"}, "linear"),
        ({"REVERSE_DEEP": "True", "DEEP_SHARED": "True"}, "vpt-deep-reversed-shared"),
        ({"FORWARD_DEEP_NOEXPAND": "True", "DEEP": "True"}, "vpt-deep-noexpand"),
        ({"DEEP": "False"}, "vpt-shallow"),
        ({"TRANSFER_TYPE": "'tinytl-bias'", "LOCATION": "'add'"}, "tinytl-bias"),
    ],
)
def test_methods_of_vpt(config: dict[str, str], method: str, tmp_path: Path) -> None:
    write(tmp_path / VTAB_LOG, vpt_log([50], epochs=1, **config))
    record = record_of(imported("vpt", tmp_path, tmp_path / "results"))
    assert record.method == method
    # The size of an MLP's head does not follow from the number of classes.
    assert record.trainable_params_without_head == (0 if method == "mlp-3" else 128_303 - 769 * 47)


def test_vpt_options_are_part_of_the_method(tmp_path: Path) -> None:
    write(tmp_path / VTAB_LOG, vpt_log([50], epochs=1, LOCATION="'add'", NUM_DEEP_LAYERS="3"))
    assert record_of(imported("vpt", tmp_path, tmp_path / "results")).method == "vpt-deep-add-3-layers"


@pytest.mark.parametrize(("mode", "method"), [("retrain", "noah"), ("super", None)])
def test_noah_without_a_switch_is_a_subnet_or_a_supernet(mode: str, method: str | None, tmp_path: Path) -> None:
    config = NOAH_CONFIG.format(epochs=1, mode=mode).replace("is_adapter: true", "is_adapter: false")
    write(tmp_path / "noah/config.yaml", config)
    write(tmp_path / "noah/log.txt", json_lines({0: 80}))
    outcomes = imported("noah", tmp_path / "noah", tmp_path / "results")
    if method is None:
        assert "a supernet, which is not a result" in reason_of(outcomes)
        return
    record = record_of(outcomes)
    assert (record.method, record.trainable_params, record.params_as_written) == ("noah", 0, 128_303)
    assert "that of the supernet" in record.origin_note


@pytest.mark.parametrize(
    ("switch", "method"), [("is_adapter", "adapter"), ("is_LoRA", "lora"), ("is_visual_prompt_tuning", "vpt-deep")]
)
def test_a_switch_of_noah_names_the_method(switch: str, method: str, tmp_path: Path) -> None:
    config = NOAH_CONFIG.format(epochs=1, mode="retrain").replace("is_adapter", switch)
    write(tmp_path / "noah/config.yaml", f"{config}cfg: x/ViT-B_prompt_100.yaml\n")
    write(tmp_path / "noah/log.txt", json_lines({0: 80}))
    record = record_of(imported("noah", tmp_path / "noah", tmp_path / "results"))
    prompts = {"num_tokens": 100} if method == "vpt-deep" else {}
    assert (record.method, record.settings) == (method, {"lr": 0.001, **prompts})


def test_noah_with_two_switches_is_a_supernet(tmp_path: Path) -> None:
    config = NOAH_CONFIG.format(epochs=1, mode="super") + "is_LoRA: true\n"
    write(tmp_path / "noah/config.yaml", config)
    write(tmp_path / "noah/log.txt", json_lines({0: 80}))
    assert "a supernet" in reason_of(imported("noah", tmp_path / "noah", tmp_path / "results"))
