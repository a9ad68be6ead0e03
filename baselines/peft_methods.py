"""The tuners of the ``peft`` library as methods called ``peft-NAME``, described without importing the library."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import version

from shipbench.errors import InputError, did_you_mean
from shipbench.methods import BuildContext, Built, Method, MethodFamily

from .peft_library import Variant, tuners, variants
from .peft_settings import settings_class

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
    "supertuning": "Super-Tuning",
    "tinylora": "TinyLoRA",
    "unilora": "UniLoRA",
    "vblora": "VB-LoRA",
    "vera": "VeRA",
}
_PROMPTS = "it adds learned tokens to the input of a language model; 'vpt-deep' adds prompts to images"
_UNUSABLE = {
    "lily": "it weights its experts by the mean over a batch, so the answer to an image depends on the others",
    "adaption_prompt": "it adds prompts to the attention of LLaMA, GPT-2 or Mistral alone; 'vpt-deep' adds prompts",
    "poly": "it routes each input by the number of its task, and a run has one task; use peft-lora",
    "shadow": "it runs a second language model beside the decoder blocks of the first",
    "trainable_tokens": "it trains rows of a table of token embeddings, which images do not have",
    "xlora": "it mixes LoRA adapters that were trained before, which a run does not have; use peft-lora",
}
# The first torch whose randn_like takes a generator.
_PVERA_TORCH = (2, 10)


class PeftFamily(MethodFamily):
    """Every tuner of the installed ``peft`` library that acts on linear or norm layers."""

    library = "peft"

    def names(self) -> list[str]:
        """Return the names of the usable tuners; none if the library is not installed."""
        return sorted(variant.method for variant in variants().values() if not _why_unusable(variant))

    def method(self, name: str) -> Method:
        """Return the tuner called ``name``; raise ``InputError`` if there is none, or if it cannot work on images."""
        if not tuners():
            raise InputError(f"{name} needs the peft library; install it with pip install 'shipbench[peft]'")
        by_method = {variant.method: variant for variant in variants().values()}
        if name not in by_method:
            closest = did_you_mean(name, self.names())
            raise InputError(f"unknown method {name!r}{closest}; peft {version('peft')} has no such tuner")
        reason = _why_unusable(by_method[name])
        if reason:
            raise InputError(f"{name} cannot adapt a model of images: {reason}")
        return _method(by_method[name].name)


class PeftMethod(Method):
    """One tuner of the ``peft`` library, ``peft-NAME``, with the settings of its configuration."""

    mergeable = True

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self.name = variant.method
        where = "all norms" if variant.tuner.acts_on_norms else "the linear layers of the blocks"
        self.summary = f"{self._printed} of the peft library, on {where}"
        self.settings = settings_class(variant.name)

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
    return PeftMethod(variants()[name])
