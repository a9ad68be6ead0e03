"""Sets of weights in a checkpoint: the prefixes of their names, and which of several sets is used by convention.

A checkpoint is flattened to dotted names first, so a wrapper (``model``), a nest (``teacher``) and a prefix
(``module.``) are the same thing: whatever stands before the names of a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile, zip_longest

from torch import Tensor

from shipbench.backbones.key_conversions import Weights
from shipbench.errors import InputError

# Modules that torch wraps around others: compilation, FSDP, activation checkpointing, DeepSpeed.
_WRAPPING = re.compile(r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
# Preferences between sets of equal standing. The first four are timm's, whose loader prefers averaged weights;
# DINO evaluates its teacher, MoCo its base encoder.
_PREFERRED = (
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model",
    "teacher",
    "student",
    "base_encoder",
    "momentum_encoder",
)


def unwrapped(tensors: Mapping[str, Tensor], where: str) -> Weights:
    """Return the tensors by names without the wrappers of torch, at any depth."""
    names = {key: _WRAPPING.sub("", key) for key in tensors}
    if len(set(names.values())) < len(names):
        raise InputError(f"two tensors{where} have the same name once the wrappers of torch are removed")
    return {names[key]: value for key, value in tensors.items()}


def prefixes_before(anchors: Sequence[str], tensors: Iterable[str]) -> dict[str, set[str]]:
    """Return every prefix, empty or ending with a dot, that precedes an anchor, with the anchors that it precedes."""
    prefixes: dict[str, set[str]] = {}
    for key in tensors:
        for anchor in anchors:
            prefix = key.removesuffix(anchor)
            if key.endswith(anchor) and (not prefix or prefix.endswith(".")):
                prefixes.setdefault(prefix, set()).add(anchor)
    return prefixes


def preferred(prefixes: Sequence[str], where: str) -> str:
    """Return the prefix of the set that convention prefers to all others; raise ``InputError`` if there is none."""
    for prefix in prefixes:
        if all(_precedes(prefix, other) for other in prefixes if other != prefix):
            return prefix
    sets = ", ".join(prefix.rstrip(".") or "(no prefix)" for prefix in prefixes)
    raise InputError(f"there are several sets of weights{where}: {sets}; save the one that you mean alone")


def _precedes(prefix: str, other: str) -> bool:
    """Return whether convention prefers one set to another by the first of their names that differ."""
    # Later names decide nothing: what lies under an unknown name may be anything, such as weights to start from.
    pairs = zip_longest(prefix.split("."), other.split("."))
    name, rival = next(pair for pair in pairs if pair[0] != pair[1])
    return name in _PREFERRED and rival in _PREFERRED and _PREFERRED.index(name) < _PREFERRED.index(rival)


def shared_prefix(keys: Iterable[str]) -> str:
    """Return the prefix, empty or ending with a dot, that all keys share."""
    columns = zip(*(key.split(".")[:-1] for key in keys), strict=False)
    shared = [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, columns)]
    return ".".join([*shared, ""])
