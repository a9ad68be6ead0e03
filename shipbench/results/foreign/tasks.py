"""The names that other harnesses and papers give to the tasks of VTAB-1k."""

from __future__ import annotations

import difflib
import re

from shipbench.results.foreign.result import VTAB
from shipbench.tasks import TASKS

_NAMES: dict[str, tuple[str, ...]] = {
    "cifar100": ("cifar", "cifar-100", "cifar(num_classes=100)"),
    "caltech101": (),
    "dtd": (),
    "oxford_flowers102": ("flowers102", "flower102"),
    "oxford_iiit_pet": ("oxford_pet", "pet", "pets"),
    "svhn": (),
    "sun397": (),
    "patch_camelyon": ("camelyon",),
    "eurosat": (),
    "resisc45": (),
    "diabetic_retinopathy": ("retinopathy", 'diabetic_retinopathy(config="btgraham-300")'),
    "clevr_count": ('clevr(task="count_all")',),
    "clevr_dist": ("clevr_distance", 'clevr(task="closest_object_distance")'),
    "dmlab": (),
    "kitti": ("kitti-dist", "kitti-distance", 'kitti(task="closest_vehicle_distance")'),
    "dsprites_loc": (
        "dsprites_position",
        "dsprites_location",
        "dspr-loc",
        'dsprites(predicted_attribute="label_x_position",num_classes=16)',
    ),
    "dsprites_ori": (
        "dsprites_orientation",
        "dspr-orient",
        "dspr-ori",
        'dsprites(predicted_attribute="label_orientation",num_classes=16)',
    ),
    "smallnorb_azi": (
        "smallnorb_azimuth",
        "snorb-azim",
        "snorb-azimuth",
        "snorb-azi",
        'smallnorb(predicted_attribute="label_azimuth")',
    ),
    "smallnorb_ele": (
        "smallnorb_elevation",
        "snorb-elev",
        "snorb-elevation",
        "snorb-ele",
        'smallnorb(predicted_attribute="label_elevation")',
    ),
}


def _key(name: str) -> str:
    """Return ``name`` without case, quotes, hyphens, underscores, spaces and slashes, as in ``Clevr/count``."""
    return re.sub(r"[-_ /\"'\\]", "", name.lower())


def _plain(name: str) -> str:
    """Return ``name`` without case, hyphens and spaces."""
    return re.sub(r"[- ]", "", name.lower())


_TASK_OF = {_key(name): task for task, names in _NAMES.items() for name in (task, *names)}
# Underscores count here: oxford_flowers is CoOp's name for other splits than those of Oxford Flowers in FGVC.
_OTHER_TASKS = {
    _plain(name): task.name for task in TASKS.values() if task.suite != VTAB for name in (task.name, *task.folder_names)
}


def vtab_task(name: str) -> str | None:
    """Return the catalogue's name of a VTAB-1k task, or None; case, ``-``, ``_`` and ``/`` do not count."""
    return _TASK_OF.get(_key(name))


def catalogued_task(name: str) -> str | None:
    """Return the catalogue's name of a task of any suite as users and papers write it, or None for any other name."""
    return vtab_task(name) or _OTHER_TASKS.get(_plain(name))


def task_and_suite(name: str, group: str = "vtab") -> tuple[str, str]:
    """Return the task and the suite of a result whose harness calls its data ``name``, in ``group`` (vtab or fgvc).

    A name that is none of VTAB-1k stays as it is, without a suite unless the group is ``fgvc``.
    """
    task = vtab_task(name) if group == "vtab" else None
    return (task, VTAB) if task else (name, "fgvc" if group == "fgvc" else "")


def nearest_tasks(name: str) -> list[str]:
    """Return the three tasks of VTAB-1k whose names are closest to ``name``."""
    close = difflib.get_close_matches(_key(name), list(_TASK_OF), n=len(_TASK_OF), cutoff=0.0)
    return list(dict.fromkeys(_TASK_OF[alias] for alias in close))[:3]
