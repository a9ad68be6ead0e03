"""The names that papers print: of methods, tasks, suites, switches and settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from textwrap import wrap
from zlib import crc32

from shipbench.tasks.catalogue import GROUPS, SUITES, TASKS

DEMO_SENTENCE = "The demo suite is a demonstration and a regression net, not a benchmark."
DEMO_SUITES = ("demo", "demo-tiny")
MEAN_OF_GROUPS = "mean of groups"
MEAN_OF_TASKS = "mean of tasks"

_METHODS = {
    "full": "Full fine-tuning",
    "linear": "Linear probe",
    "vpt-shallow": "VPT-shallow",
    "vpt-deep": "VPT-deep",
    "ship": "SHIP",
}
_SUITES = {"vtab-1k": "VTAB-1k", "demo": "Demo suite", "demo-tiny": "Demo-tiny"}
_TASKS = {
    "cifar100": "CIFAR-100",
    "caltech101": "Caltech101",
    "dtd": "DTD",
    "oxford_flowers102": "Flowers102",
    "oxford_iiit_pet": "Pets",
    "svhn": "SVHN",
    "sun397": "Sun397",
    "patch_camelyon": "Camelyon",
    "eurosat": "EuroSAT",
    "resisc45": "Resisc45",
    "diabetic_retinopathy": "Retinopathy",
    "clevr_count": "Clevr-Count",
    "clevr_dist": "Clevr-Dist",
    "dmlab": "DMLab",
    "kitti": "KITTI-Dist",
    "dsprites_loc": "dSpr-Loc",
    "dsprites_ori": "dSpr-Ori",
    "smallnorb_azi": "sNORB-Azi",
    "smallnorb_ele": "sNORB-Ele",
}
_SWITCHES = {
    "no-hierarchy": "hierarchy",
    "no-shared-prompts": "shared prompts",
    "no-attribute-prompts": "attribute prompts",
    "no-matching-loss": "matching loss",
    "coupled-attention": "decoupled attention",
}


def method_name(method: str) -> str:
    """Return the printed name of a method; an unknown one keeps its own."""
    return _METHODS.get(method, method)


def method_order(method: str) -> tuple[int, str]:
    """Sort key: full fine-tuning, linear, other people's methods, VPT, and SHIP last, as papers order them."""
    order = {"full": 0, "linear": 1, "vpt-shallow": 3, "vpt-deep": 4, "ship": 5}
    return order.get(method, 2), method


def task_name(task: str) -> str:
    """Return the printed name of a task; an unknown one keeps its own."""
    return _TASKS.get(task, task)


def suite_name(suite: str) -> str:
    """Return the printed name of a suite; an unknown one keeps its own."""
    return _SUITES.get(suite, suite)


def suite_order(suite: str) -> tuple[int, str]:
    """Sort key: the catalogue's order, then unknown suites by name."""
    names = [known.name for known in SUITES]
    return (names.index(suite) if suite in names else len(names)), suite


def task_order(task: str) -> tuple[int, str]:
    """Sort key: the catalogue's order, then unknown tasks by name."""
    names = list(TASKS)
    return (names.index(task) if task in TASKS else len(names)), task


def group_order(group: str) -> tuple[int, str]:
    """Sort key: Natural, Specialized, Structured, then unknown groups by name."""
    return (GROUPS.index(group) if group in GROUPS else len(GROUPS)), group


def component_name(switch: str) -> str:
    """Return the name of the part that an ablation switch takes away."""
    return _SWITCHES.get(switch, switch.removeprefix("no-").replace("-", " "))


def switch_order(switch: str) -> tuple[int, str]:
    """Sort key: the order in which the parts of SHIP are described, then unknown switches by name."""
    names = list(_SWITCHES)
    return (names.index(switch) if switch in names else len(names)), switch


def setting_name(key: str) -> str:
    """Return a setting's printed name: ``cfg.prompt_length`` is "prompt length"."""
    return key.removeprefix("cfg.").replace("_", " ")


def slug(text: str) -> str:
    """Return ``text`` as part of a file name: lower-case letters, digits and hyphens; unlike texts stay unlike."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return plain if plain == text else f"{plain[:40]}-{crc32(text.encode()):08x}".lstrip("-")


def joined(names: Sequence[str]) -> str:
    """Join names with commas and a final "and"."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def printable(text: str) -> str:
    """Return ``text`` with a space for every control character: no format and no font can show one."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else " " for letter in text)


def shortened(text: str, most: int = 44) -> str:
    """Return ``text`` with its middle left out if it is too long for a figure."""
    tail = most // 3
    return text if len(text) <= most else f"{text[: most - tail - 1].rstrip()}…{text[-tail:].lstrip()}"


def wrapped(text: str, width: int) -> str:
    """Break ``text`` into lines of at most ``width`` letters, for places where room is short."""
    return "\n".join(wrap(text, width)) or text


def task_list(tasks: Iterable[str], suite_tasks: Sequence[str]) -> str:
    """Name tasks in order, or count them where they are all of a suite's."""
    names = sorted(set(tasks), key=task_order)
    if len(names) > 1 and set(names) == set(suite_tasks):
        return f"all {len(names)} tasks"
    return ", ".join(task_name(task) for task in names)


def seed_list(seeds: Sequence[int]) -> str:
    """Write seeds shortly: runs of three or more as a range ("0-2"), others one by one."""
    parts: list[list[int]] = []
    for seed in sorted(set(seeds)):
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    texts = [[f"{run[0]}–{run[-1]}"] if len(run) > 2 else [str(seed) for seed in run] for run in parts]  # noqa: RUF001
    return ", ".join(text for group in texts for text in group)


def with_seeds(seeds: Sequence[int]) -> str:
    """Write seeds with their noun: "seed 0", "seeds 0-2"."""
    return f"{'seed' if len(set(seeds)) == 1 else 'seeds'} {seed_list(seeds)}"


def counted(count: int, noun: str) -> str:
    """Write a count with its noun: "1 run", "3 runs"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
