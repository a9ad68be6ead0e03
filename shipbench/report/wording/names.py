"""Printed names and sort orders of methods, tasks, suites, switches and settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shipbench.methods import Method, find_method
from shipbench.tasks.catalogue import GROUPS
from shipbench.tasks.registry import SUITES, TASKS

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


def method_name(method: str) -> str:
    """Return the title of a method, or the name itself if the method is not installed."""
    installed = find_method(method)
    return installed.title if installed is not None else method


def method_order(method: str) -> tuple[int, str]:
    """Sort key: full fine-tuning, linear probe, other methods by name, VPT, then SHIP."""
    installed = find_method(method)
    return (installed.order if installed is not None else Method.order), method


def task_name(task: str) -> str:
    """Return the printed name of a task; a task outside the catalogue keeps its name."""
    return _TASKS.get(task, task)


def corruption_name(corruption: str) -> str:
    """Return the printed name of a corruption."""
    return "JPEG" if corruption == "jpeg" else corruption.replace("-", " ")


def suite_name(suite: str) -> str:
    """Return the printed name of a suite; a suite outside the catalogue keeps its name."""
    return next((entry.title for entry in SUITES if entry.name == suite), suite)


def suite_beside(tasks: str, suite: str) -> str:
    """Return the printed name of a suite beside that of its tasks; empty where a task is a suite of its own name."""
    name = suite_name(suite)
    return "" if name.casefold() == tasks.casefold() else name


def suite_cautions(suites: Iterable[str]) -> list[str]:
    """Return the sentences that accompany the numbers of ``suites``, each once."""
    wanted = set(suites)
    return list(dict.fromkeys(suite.caution for suite in SUITES if suite.name in wanted and suite.caution))


def suite_order(suite: str) -> tuple[int, str]:
    """Return a sort key: the order of the catalogue, then other suites by name."""
    names = [item.name for item in SUITES]
    return (names.index(suite) if suite in names else len(names)), suite


def task_order(task: str) -> tuple[int, str]:
    """Return a sort key: the order of the catalogue, then other tasks by name."""
    names = list(TASKS)
    return (names.index(task) if task in TASKS else len(names)), task


def group_order(group: str) -> tuple[int, str]:
    """Return a sort key: Natural, Specialized, Structured, then other groups by name."""
    return (GROUPS.index(group) if group in GROUPS else len(GROUPS)), group


def component_name(switch: str, method: str) -> str:
    """Return the name of the part that an ablation switch of ``method`` takes away."""
    installed = find_method(method)
    components = {} if installed is None else installed.components
    return components.get(switch, switch.removeprefix("no-").replace("-", " "))


def switch_order(switch: str, method: str) -> tuple[int, str]:
    """Sort key: the order in which ``method`` names its switches, then unknown switches by name."""
    installed = find_method(method)
    names = [] if installed is None else list(installed.all_switches)
    return (names.index(switch) if switch in names else len(names)), switch


def setting_name(key: str) -> str:
    """Return the printed name of a setting: ``cfg.prompt_length`` is "prompt length"."""
    return key.removeprefix("cfg.").replace("_", " ")


def task_list(tasks: Iterable[str], suite_tasks: Sequence[str]) -> str:
    """Return the names of ``tasks`` in order, or their number if they are the whole suite."""
    names = sorted(set(tasks), key=task_order)
    if len(names) > 1 and set(names) == set(suite_tasks):
        return f"all {len(names)} tasks"
    return ", ".join(task_name(task) for task in names)
