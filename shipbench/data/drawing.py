"""Which images of a source a task trains on, validates on and tests on: a seeded, class-balanced draw.

Every image has a rank within its class, which follows from a hash of its path. A draw takes the first images of a
class, so a larger draw contains a smaller one, and a new image displaces at most one other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from shipbench.counts import counted, named_few
from shipbench.data.types import Entry, SplitRole
from shipbench.errors import InputError
from shipbench.tasks import Task
from shipbench.tasks.catalogue import SplitName

Entries: TypeAlias = Sequence[Entry]
ByClass: TypeAlias = dict[int, list[Entry]]
# How many validation images of a class few-shot learning uses at most (CoOp).
_MOST_SHOTS_VAL = 4


@dataclass(frozen=True)
class Drawing:
    """The drawn images by split, each in the order of the listing, and whether the test images were held out.

    ``train`` is ``train800`` followed by ``val200``, or ``train800`` alone if the task has a number of shots. ``pools``
    are the images that train, val and test are drawn from, all images of the source together.
    """

    splits: Mapping[SplitName, tuple[Entry, ...]]
    pools: Mapping[SplitRole, tuple[Entry, ...]]
    held_out: bool

    def summary(self) -> str:
        """Return the number and the origin of the images to train, validate and test, in words."""
        train, val, test = (self.splits[name] for name in ("train800", "val200", "test"))
        val_origin = "" if self.pools["val"] else " of train"
        test_origin = " held out of train" if self.held_out else ""
        return f"train {len(train)}, val {len(val)}{val_origin}, test {len(test)}{test_origin}"


def draw(task: Task, splits: Mapping[SplitRole, Sequence[Entry]], classes: Sequence[str]) -> Drawing:
    """Draw the images of ``task`` from the splits of its source: ``train``, and ``val`` and ``test`` if it has them.

    Without test images, a fifth of each class is held out of train first. Raises ``InputError`` if a class has no image
    to train on or too few for the shots, and if more images are asked for than there are.
    """
    pools, held_out = _pools(task, splits)
    _require_training_images(task, pools["train"], classes)
    if task.shots:
        fit, val = draw_shots(task, pools["train"], pools["val"], classes)
    else:
        fit, val = _fit_and_val(task, _by_class(pools["train"]), pools["val"], len(classes))
    test = _all_or_balanced(task, _by_class(pools["test"]), task.draw.test, "test")
    order = {entry: position for position, entry in enumerate(entry for part in splits.values() for entry in part)}
    fit, val, test = (sorted(part, key=order.__getitem__) for part in (fit, val, test))
    train = fit if task.shots else [*fit, *val]
    drawn: dict[SplitName, Entries] = {"train800": fit, "val200": val, "train": train, "test": test}
    return Drawing({name: tuple(entries) for name, entries in drawn.items()}, pools, held_out)


def draw_test(task: Task, test: Entries) -> tuple[Entry, ...]:
    """Draw the test images of ``task`` from those of its source, in their order.

    Raises ``InputError`` if more images are asked for than there are.
    """
    drawn = _all_or_balanced(task, _by_class(test), task.draw.test, "test")
    order = {entry: position for position, entry in enumerate(test)}
    return tuple(sorted(drawn, key=order.__getitem__))


def draw_shots(task: Task, train: Entries, val: Entries, classes: Sequence[str]) -> tuple[Entries, Entries]:
    """Draw ``task.shots`` training images of each class, and as many to validate on but at most 4.

    Without ``val``, these come from the other training images; a class may have fewer of them. Raises
    ``InputError`` that names the classes with too few training images.
    """
    pool = _by_class(train)
    sizes = [len(pool.get(label, ())) for label in range(len(classes))]
    scarce = [f"{name} ({size})" for name, size in zip(classes, sizes, strict=True) if size < task.shots]
    if scarce:
        raise InputError(
            f"task {task.name} has fewer than {task.shots} training images of {_classes(scarce)}; "
            "ask for fewer with --shots"
        )
    salt = f"shots {task.shot_seed}"
    ranked = {label: _ranked(entries, salt) for label, entries in pool.items()}
    fit = [entry for entries in ranked.values() for entry in entries[: task.shots]]
    most = min(task.shots, _MOST_SHOTS_VAL)
    if val:
        return fit, [entry for entries in _by_class(val).values() for entry in _ranked(entries, salt)[:most]]
    # An image that is listed twice may be among the shots once; the other time is not left to validate on.
    taken = set(fit)
    rest = [[entry for entry in entries if entry not in taken] for entries in ranked.values()]
    # From the end, so that the images to validate on are the same for every number of shots that leaves some.
    return fit, [entry for entries in rest for entry in entries[-most:]]


def _pools(task: Task, splits: Mapping[SplitRole, Entries]) -> tuple[dict[SplitRole, tuple[Entry, ...]], bool]:
    """Return the images to draw each split from, and whether those of test are held out of the source's train."""
    train, val, test = (tuple(splits.get(role, ())) for role in ("train", "val", "test"))
    if test:
        return {"train": train, "val": val, "test": test}, False
    held_out = {entry for entries in _by_class(train).values() for entry in _fifth(entries, "test")}
    if not held_out:
        # A class of two images has one to hold out.
        raise InputError(
            f"task {task.name} has no test images, and too few images to hold out a fifth of each class: each of its "
            f"{len(train)} images is a class of its own; add images, or choose another label if these are no classes"
        )
    rest = tuple(entry for entry in train if entry not in held_out)
    return {"train": rest, "val": val, "test": tuple(entry for entry in train if entry in held_out)}, True


def _require_training_images(task: Task, pool: Entries, classes: Sequence[str]) -> None:
    present = {entry.label for entry in pool}
    absent = [name for label, name in enumerate(classes) if label not in present]
    if absent:
        raise InputError(f"task {task.name} has no training image of {_classes(absent)}; every class needs some")
    if len(classes) < 2:
        raise InputError(f"task {task.name} has only the class {classes[0]!r}; classification needs two or more")


def _fit_and_val(task: Task, pool: ByClass, val: Entries, num_classes: int) -> tuple[Entries, Entries]:
    """Draw the images to fit on and to validate on; they are disjoint unless the source's own splits overlap."""
    if task.draw.train is not None and task.draw.train < num_classes:
        raise InputError(
            f"task {task.name} asks for {counted(task.draw.train, 'training image')} of {num_classes} classes; "
            "every class needs one"
        )
    if val:
        fit = _all_or_balanced(task, pool, task.draw.train, "training")
        return fit, _all_or_balanced(task, _by_class(val), task.draw.val, "validation")
    if task.draw.val is None:
        drawn = _by_class(_all_or_balanced(task, pool, task.draw.train, "training"))
        return _without(drawn, {entry for entries in drawn.values() for entry in _fifth(entries, "val")})
    if task.draw.train is None:
        # One image of each class is left to fit on, as often as it is listed.
        kept = {_ranked(entries, "train")[0] for entries in pool.values()}
        spare = {label: [entry for entry in entries if entry not in kept] for label, entries in pool.items()}
        drawn_val = _balanced(task, spare, task.draw.val, "validation")
        rest, _ = _without(pool, set(drawn_val))
        return rest, drawn_val
    fit = _balanced(task, pool, task.draw.train, "training")
    rest, _ = _without(pool, set(fit))
    return fit, _balanced(task, _by_class(rest), task.draw.val, "validation")


def _without(pool: ByClass, taken: Collection[Entry]) -> tuple[Entries, Entries]:
    """Return the images that are not taken and those that are, each as often as it is listed."""
    everything = [entry for entries in pool.values() for entry in entries]
    return [entry for entry in everything if entry not in taken], [entry for entry in everything if entry in taken]


def _all_or_balanced(task: Task, pool: ByClass, wanted: int | None, purpose: str) -> Entries:
    if wanted is None:
        return [entry for entries in pool.values() for entry in entries]
    return _balanced(task, pool, wanted, purpose)


def _balanced(task: Task, pool: ByClass, wanted: int, purpose: str) -> Entries:
    """Draw ``wanted`` images, as evenly over the classes as their sizes allow."""
    available = sum(len(entries) for entries in pool.values())
    if wanted > available:
        images = counted(wanted, f"{purpose} image")
        raise InputError(f"task {task.name} asks for {images}, but only {available} are left for them")
    drawn: list[Entry] = []
    # The smallest class first: what it lacks is shared by the larger ones.
    labels = sorted(pool, key=lambda label: (len(pool[label]), label))
    for left, label in zip(range(len(labels), 0, -1), labels, strict=True):
        drawn += _ranked(pool[label], "train")[: (wanted - len(drawn)) // left]
    return drawn


def _fifth(entries: Entries, salt: str) -> list[Entry]:
    """Return a fifth of the images of a class, rounded; at least one unless there is only one."""
    count = max((len(entries) + 2) // 5, min(1, len(entries) - 1))
    return _ranked(entries, salt)[:count]


def _by_class(entries: Entries) -> ByClass:
    of_class: ByClass = {}
    for entry in entries:
        of_class.setdefault(entry.label, []).append(entry)
    return of_class


def _ranked(entries: Entries, salt: str) -> list[Entry]:
    """Return the entries in the order of their ranks, which follow from a hash of their paths."""
    start = hashlib.sha256(f"{salt}\0".encode())

    def rank(entry: Entry) -> bytes:
        digest = start.copy()
        # File names need not be UTF-8.
        digest.update(entry.path.encode(errors="surrogateescape"))
        return digest.digest()

    return sorted(entries, key=rank)


def _classes(names: Sequence[str]) -> str:
    return f"{'class' if len(names) == 1 else 'classes'} {named_few(names)}"
