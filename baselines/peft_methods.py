"""The tuners of the ``peft`` library as methods called ``peft-NAME``, described without importing the library."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

from shipbench.errors import InputError, did_you_mean
from shipbench.methods import BuildContext, Built, Method, MethodFamily
from shipbench.settings import Settings, configure

from .peft_library import Setting, Variant, tuners

# DoRA is a setting of LoRA in the library, and a method in the literature.
_FIXED: Mapping[str, tuple[str, Mapping[str, Any]]] = {"dora": ("lora", {"use_dora": True})}
# As their papers spell them, where the library's classes are called otherwise.
_TITLES = {
    "adalora": "AdaLoRA",
    "adamss": "AdaMSS",
    "beft": "BEFT",
    "deft": "DEFT",
    "delora": "DeLoRA",
    "dora": "DoRA",
    "frod": "FRoD",
    "glora": "GLoRA",
    "gralora": "GraLoRA",
    "hira": "HiRA",
    "ln_tuning": "LN tuning",
    "lora": "LoRA",
    "miss": "MiSS",
    "peanut": "PEANuT",
    "psoft": "PSOFT",
    "pvera": "PVeRA",
    "randlora": "RandLoRA",
    "road": "RoAd",
    "shira": "SHiRA",
    "tinylora": "TinyLoRA",
    "unilora": "UniLoRA",
    "vera": "VeRA",
}
_PROMPTS = "it adds learned tokens to the input of a language model; 'vpt-deep' adds prompts to images"
_UNUSABLE = {
    "adaption_prompt": "it adds prompts to the attention of LLaMA, GPT-2 or Mistral alone; 'vpt-deep' adds prompts",
    "poly": "it routes each input by the number of its task, and a run has one task; use peft-lora",
    "shadow": "it runs a second language model beside the decoder blocks of the first",
    "trainable_tokens": "it trains rows of a table of token embeddings, which images do not have",
    "xlora": "it mixes LoRA adapters that were trained before, which a run does not have; use peft-lora",
}
# The first torch whose randn_like takes a generator.
_PVERA_TORCH = (2, 10)
# What the library cannot add to the weights of the layers.
_UNMERGEABLE = ("lily",)
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
# AdaLoRA takes its steps from the run and its rank from ``init_r``; AdaMSS chooses subspaces only by a callback of
# transformers' trainer.
_DECIDED: Mapping[str, tuple[str, ...]] = {
    "adalora": ("r", "total_step", "use_dora"),
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
}


class PeftFamily(MethodFamily):
    """Every tuner of the installed ``peft`` library that acts on linear or norm layers."""

    def names(self) -> list[str]:
        """Return the names of the usable tuners; none if the library is not installed."""
        return sorted(variant.method for variant in _variants().values() if not _why_unusable(variant))

    def method(self, name: str) -> Method:
        """Return the tuner called ``name``; raise ``InputError`` if there is none, or if it cannot work on images."""
        if not tuners():
            raise InputError(f"{name} needs the peft library; install it with pip install 'shipbench[peft]'")
        variants = {variant.method: variant for variant in _variants().values()}
        if name not in variants:
            closest = did_you_mean(name, self.names())
            raise InputError(f"unknown method {name!r}{closest}; peft {version('peft')} has no such tuner")
        reason = _why_unusable(variants[name])
        if reason:
            raise InputError(f"{name} cannot adapt a model of images: {reason}")
        return _method(variants[name].name)


class PeftMethod(Method):
    """One tuner of the ``peft`` library, ``peft-NAME``, with the settings of its configuration."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self.name = variant.method
        self.mergeable = variant.name not in _UNMERGEABLE
        where = "all norms" if variant.tuner.acts_on_norms else "the linear layers of the blocks"
        self.summary = f"{self._printed} of the peft library, on {where}"
        self.settings = _settings_class(variant.name)

    def __reduce__(self) -> tuple[Callable[[str], Method], tuple[str]]:
        """Pickle the name alone, because the class of the settings has none that can be imported."""
        return _method, (self.variant.name,)

    @property
    def title(self) -> str:
        """The name as the library writes it, as in ``BOFT (peft)``."""
        return f"{self._printed} (peft)"

    @property
    def _printed(self) -> str:
        return _TITLES.get(self.variant.name, self.variant.tuner.config.removesuffix("Config"))

    def build(self, context: BuildContext) -> Built:
        """Let the library add its layers to the frozen backbone; add a new head."""
        from .peft_model import build_peft

        return build_peft(self.variant, context)


@cache
def _variants() -> Mapping[str, Variant]:
    """Return what the library offers as methods, by name."""
    available = tuners()
    variants = {name: Variant(name, tuner, {}) for name, tuner in available.items()}
    fixed = {name: Variant(name, available[of], fixed) for name, (of, fixed) in _FIXED.items() if of in available}
    return {**variants, **fixed}


def _why_unusable(variant: Variant) -> str:
    """Return why a tuner cannot adapt a model of images, or an empty string."""
    if variant.name == "pvera" and _torch_release() < _PVERA_TORCH:
        return "it draws noise with a function that torch has from 2.10 on"
    return _UNUSABLE.get(variant.name) or (_PROMPTS if variant.tuner.learns_prompts else "")


def _torch_release() -> tuple[int, int]:
    major, minor = version("torch").split(".")[:2]
    return int(major), int(minor)


@cache
def _method(name: str) -> PeftMethod:
    return PeftMethod(_variants()[name])


@cache
def _settings_class(name: str) -> type[Any]:
    """Return a settings class with the plain fields of the tuner's configuration, and its defaults."""
    variant = _variants()[name]
    tuner = variant.tuner
    hidden = {*_IDLE, *_DECIDED.get(name, ()), *variant.fixed, "target_modules"}
    chosen = [setting for setting in tuner.settings.values() if setting.name not in hidden]
    fields: list[tuple[str, Any, Any]] = [("target_modules", str, dataclasses.field(default="auto"))]
    if tuner.name == "ia3":
        fields.append(("feedforward_modules", str, dataclasses.field(default="fc2")))
    fields += [(setting.name, _type_of(setting), dataclasses.field(default=setting.default)) for setting in chosen]

    def reduce(settings: Any) -> tuple[Callable[..., Any], tuple[str, dict[str, Any]]]:
        return _configured, (name, dataclasses.asdict(settings))

    namespace = {"__reduce__": reduce, "__doc__": f"Settings of the configuration {tuner.config} of peft."}
    title = f"{tuner.config}Settings"
    return dataclasses.make_dataclass(title, fields, bases=(Settings,), namespace=namespace, frozen=True)


def _configured(name: str, values: Mapping[str, Any]) -> Any:
    return configure(_settings_class(name), values)


def _type_of(setting: Setting) -> Any:
    return setting.type | None if setting.default is None else setting.type
