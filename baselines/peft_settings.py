"""The settings of the tuners of the ``peft`` library: those of their configurations that do here what they say."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal

from shipbench.errors import InputError
from shipbench.settings import Settings, configure

from .peft_library import Setting, Variant, variants

# The default of IA3's ``feedforward_modules``: the second layer of each MLP of a ViT.
FEEDFORWARD = "fc2"
# Settings without an effect here: of other frameworks, of language models, and of the files that the library writes.
_IDLE = (
    "ensure_weight_tying",
    "fan_in_fan_out",
    "layers_pattern",
    "megatron_core",
    "progressbar",
    "qalora_group_size",
    "runtime_offload_base_weight",
    "save_indices",
    "save_only_topk_weights",
    "save_precomputed_indices",
    "save_projection",
    "use_qalora",
)
# AdaLoRA takes its steps from the run and its rank from ``init_r``, and ignores other settings that it inherits from
# LoRA; AdaMSS chooses subspaces only by a callback of transformers' trainer; a generator of PVeRA's own would start
# again when a run resumes, and with samples at inference an answer would depend on the other images of its batch.
_DECIDED: Mapping[str, tuple[str, ...]] = {
    "adalora": ("r", "total_step", "use_dora", "use_rslora", "lora_bias"),
    "adamss": (
        "use_asa",
        "asa_target_subspaces",
        "init_warmup",
        "final_warmup",
        "mask_interval",
        "asa_importance_beta",
        "asa_uncertainty_beta",
        "asa_schedule_exponent",
    ),
    "pvera": ("generator_seed", "sample_at_inference"),
}


@cache
def settings_class(name: str) -> type[Any]:
    """Return a settings class with the plain fields of the configuration of a variant, and its defaults.

    Values that the library accepts without doing what they say raise ``InputError``.
    """
    variant = variants()[name]
    tuner = variant.tuner
    hidden = {*_IDLE, *_DECIDED.get(name, ()), *variant.fixed, "target_modules"}
    chosen = [setting for setting in tuner.settings.values() if setting.name not in hidden]
    fields: list[tuple[str, Any, Any]] = [("target_modules", str, dataclasses.field(default="auto"))]
    if tuner.name == "ia3":
        fields.append(("feedforward_modules", str, dataclasses.field(default=FEEDFORWARD)))
    fields += [
        (setting.name, _type_of(variant, setting), dataclasses.field(default=setting.default)) for setting in chosen
    ]

    def reduce(settings: Any) -> tuple[Callable[..., Any], tuple[str, dict[str, Any]]]:
        return _configured, (name, dataclasses.asdict(settings))

    def check(settings: Any) -> None:
        Settings.__post_init__(settings)
        _refuse_misleading(variant, settings)

    documentation = f"Settings of the configuration {tuner.config} of peft."
    namespace = {"__reduce__": reduce, "__post_init__": check, "__doc__": documentation}
    title = f"{tuner.config}Settings"
    return dataclasses.make_dataclass(title, fields, bases=(Settings,), namespace=namespace, frozen=True)


def _configured(name: str, values: Mapping[str, Any]) -> Any:
    return configure(settings_class(name), values)


def _type_of(variant: Variant, setting: Setting) -> Any:
    # The library takes any text here, and does nothing for most.
    if (variant.name, setting.name) == ("tinylora", "init_weights"):
        return bool | Literal["uniform"]
    return setting.type | None if setting.default is None else setting.type


def _refuse_misleading(variant: Variant, settings: Any) -> None:
    """Raise ``InputError`` for a value that the library accepts without doing what it says."""
    start = getattr(settings, "init_lora_weights", True)
    if start == "eva":
        raise InputError(f"{variant.method} has no activations from which init_lora_weights=eva starts; choose another")
    match variant.name:
        case "adalora" if not isinstance(start, bool):
            raise InputError(f"{variant.method} ignores init_lora_weights={start}; it takes true or false")
        case "adalora" if settings.init_r <= settings.target_r:
            raise InputError(
                f"init_r is {settings.init_r}, but {variant.method} shrinks ranks to target_r={settings.target_r}; "
                "set init_r higher"
            )
        case "adalora" if settings.deltaT > 1 and settings.tfinal == 0:
            raise InputError(
                f"with deltaT={settings.deltaT}, {variant.method} reaches target_r only where its last tfinal steps "
                "begin; set tfinal to 1 or more"
            )
        case "ia3" if not all(part.strip() for part in settings.feedforward_modules.split(",")):
            raise InputError(
                f"feedforward_modules {settings.feedforward_modules!r} has an empty name; name layers, as in fc1,fc2"
            )
        case "tinylora" if settings.init_weights is False:
            raise InputError(f"{variant.method} leaves its vectors unset with init_weights=false; use true or uniform")
