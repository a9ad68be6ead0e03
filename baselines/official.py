"""Load a method from the tensors of its authors' code, to compare the two."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from shipbench.adapting import AdaptedModel, Adapter
from shipbench.backbones import require_finite
from shipbench.errors import InputError, unknown
from shipbench.settings import plain

from . import settings
from .adapter import NoahAdapter, VptAdapter
from .adapter_houlsby import Houlsby
from .adapter_pfeiffer import Pfeiffer
from .adapter_plus import AdapterPlus
from .adaptformer import AdaptFormer
from .bitfit import BitFit
from .convpass import Convpass
from .difffit import DiffFit
from .fact import FactTk, FactTt
from .ln_tuning import LnTuning
from .lora import make_lora
from .partial import Partial
from .repadapter import RepAdapter
from .ssf import Ssf

_Config: TypeAlias = Mapping[str, Any]
_Maker: TypeAlias = Callable[[VisionTransformer, _Config, float], Adapter]


def _scaled(adapter: Callable[..., Adapter], config_class: Callable[..., Any], *names: str) -> _Maker:
    """Return a maker of ``adapter`` whose settings ``names`` come from the authors' configuration."""

    def make(vit: VisionTransformer, config: _Config, dropout: float) -> Adapter:
        chosen = {name: config[name] for name in names if name in config}
        return adapter(vit, config_class(dropout=dropout, **chosen))

    return make


def _without_dropout(make: _Maker) -> _Maker:
    """Return a maker of an adapter that has no dropout, whatever the rate of the others."""
    return lambda vit, config, dropout: make(vit, config, 0.0)


def _path_dropping(
    adapter: Callable[..., Adapter],
    config_class: Callable[..., Any],
    renamed: Mapping[str, str],
    fixed: Mapping[str, bool],
) -> _Maker:
    """Return a maker of an adapter without dropout that draws its own drop path.

    ``renamed`` are settings by their name in the authors' configuration, beside those that all have. It raises
    ``InputError`` for another value of a ``fixed`` part, which these adapters cannot change.
    """
    names = {"dim": "dim", "drop_path": "adapter_drop_path", "act_layer": "activation", **renamed}

    def make(vit: VisionTransformer, config: _Config, dropout: float) -> Adapter:
        for name, value in fixed.items():
            if bool(config.get(name, value)) != value:
                raise InputError(f"{name} is {config[name]!r}; this adapter has only {name}={value}")
        chosen = {ours: config[theirs] for theirs, ours in names.items() if theirs in config}
        # The authors write a scale of 1 where nothing is scaled.
        if chosen.get("scaling") == 1:
            chosen["scaling"] = "none"
        return adapter(vit, config_class(**chosen))

    return make


_MAKERS: Mapping[str, _Maker] = {
    "adapter_houlsby": _path_dropping(
        Houlsby,
        settings.HoulsbyConfig,
        {"scaling": "scale", "train_layer_norms": "train_norms", "attn_adapter": "at_attention"},
        {"norm_layer": False, "bias": True},
    ),
    "adapter_noah": _scaled(NoahAdapter, settings.SerialConfig, "dim"),
    "adapter_pfeiffer": _path_dropping(
        Pfeiffer,
        settings.PfeifferConfig,
        {"scaling": "scale", "norm_layer": "norm"},
        {"attn_adapter": False, "bias": True, "train_layer_norms": False},
    ),
    "adapter_plus": _path_dropping(
        AdapterPlus,
        settings.AdapterPlusConfig,
        {"scaling": "scaling"},
        {"attn_adapter": False, "norm_layer": False, "bias": True, "train_layer_norms": False},
    ),
    "adapter_vpt": _without_dropout(_scaled(VptAdapter, partial(settings.SerialConfig, form="vpt"), "dim")),
    "adaptformer": _scaled(AdaptFormer, settings.AdaptFormerConfig, "dim", "scale"),
    "bitfit": lambda vit, config, dropout: BitFit(settings.BitFitConfig()),
    "convpass": _scaled(Convpass, settings.ConvpassConfig, "dim", "scale"),
    "convpass_attn": _scaled(Convpass, settings.ConvpassAttentionConfig, "dim", "scale"),
    "difffit": lambda vit, config, dropout: DiffFit(vit, settings.DiffFitConfig()),
    "fact_tk": _scaled(FactTk, settings.FactTkConfig, "rank", "scale"),
    "fact_tt": _scaled(FactTt, settings.FactTtConfig, "rank", "scale"),
    "ln_tuning": lambda vit, config, dropout: LnTuning(settings.LnTuningConfig()),
    "lora_noah": _scaled(make_lora, partial(settings.LoraConfig, form="noah"), "rank", "scale"),
    # peft's configuration may state the scale as well, which follows from alpha and rank.
    "lora_peft": _scaled(make_lora, partial(settings.LoraConfig, form="peft"), "rank", "alpha"),
    "lora_qv": _scaled(make_lora, partial(settings.LoraConfig, form="qv"), "rank", "scale"),
    "partial": lambda vit, config, dropout: Partial(vit, settings.PartialConfig(blocks=config.get("blocks", 1))),
    "repadapter": _scaled(RepAdapter, settings.RepAdapterConfig, "dim", "scale", "groups"),
    "repadapter_attn": _scaled(RepAdapter, settings.RepAdapterAttentionConfig, "dim", "scale", "groups"),
    "ssf": lambda vit, config, dropout: Ssf(vit, settings.SsfConfig()),
}


# From our names to the official ones; the first pattern that fits decides.
_NAMES = (
    (r"backbone\.(.+)", r"\1"),
    (r"adapter\.core_(\w+)\.(\d+)", r"fact.blocks.\2.\1"),
    (r"adapter\.([uvcp])", r"fact.\1"),
    (r"adapter\.(gamma\d)\.(\d+)", r"blocks.\2.difffit.\1"),
    (r"adapter\.ssf_(\w+)\.(\d+)\.(\w+)", r"blocks.\2.ssf.\1.\3"),
    (r"adapter\.ssf_(\w+)\.(\w+)", r"ssf.\1.\2"),
    (r"adapter\.(\w+)\.(\d+)\.(.+)", r"blocks.\2.\1.\3"),
)


class OfficialModel(AdaptedModel):
    """An adapted model with the official names of its trained tensors.

    ``thirds`` are the official names of fused tensors whose thirds the authors store apart, as ``NAME@q`` and so on.
    """

    thirds: frozenset[str] = frozenset()

    def official_tensors(self) -> dict[str, Tensor]:
        """Return the trained tensors under their official names; they share memory with the model."""
        return self._named(lambda parameter: parameter.detach())

    def official_gradients(self) -> dict[str, Tensor]:
        """Return the gradients of the trained tensors under their official names, zero where there is none."""
        return self._named(lambda parameter: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)

    def _named(self, value_of: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        trained = [
            (name, value_of(parameter)) for name, parameter in self.named_parameters() if parameter.requires_grad
        ]
        named: dict[str, Tensor] = {}
        for name, value in trained:
            official = _official_name(name)
            if official in self.thirds:
                named |= {f"{official}@{letter}": part for letter, part in zip("qkv", value.chunk(3), strict=True)}
            else:
                named[official] = value
        return named


def load_official(
    method: str,
    backbone: VisionTransformer,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    dropout: float = 0.0,
    drop_path: float | Sequence[float] = 0.0,
) -> OfficialModel:
    """Return a method's model, in evaluation mode, with the trained ``tensors`` of its authors' code.

    ``method`` is the official name, as in ``lora_noah``; ``config`` holds the authors' settings, such as ``rank``,
    ``scale``, ``groups`` (RepAdapter), ``scaling``, ``act_layer`` and ``norm_layer`` (Adapter+). ``tensors`` have
    official names: ``blocks.0.lora.a``, timm's names for a backbone's tensor, ``head.*``.
    ``dropout`` acts where the authors' code has dropout. ``drop_path`` is the rate of the last block, to which rates
    rise linearly, or the rate of each block; the adapters' own rate is in ``config``. Raises ``InputError`` for an
    unknown method, for a part in ``config`` that the adapter does not have, for a rate outside [0, 1), and for a
    missing, unexpected or wrongly shaped tensor and one with values that are not finite, which it names.
    """
    if method not in _MAKERS:
        raise unknown("official method", method, _MAKERS)
    if "head.bias" not in tensors:
        raise InputError(f"the tensors of {method} do not fit: head.bias is missing")
    adapter = _MAKERS[method](backbone, config, dropout)
    rates = _path_rates(drop_path, len(backbone.blocks))
    model = OfficialModel(backbone, tensors["head.bias"].numel(), adapter, path_rates=rates)
    model.thirds = frozenset(name.partition("@")[0] for name in tensors if "@" in name)
    model.to(next(backbone.parameters()))
    _load(model, tensors, method)
    return model.eval()


def _load(model: OfficialModel, tensors: Mapping[str, Tensor], method: str) -> None:
    targets = model.official_tensors()
    problems = [f"{name} is missing" for name in targets if name not in tensors]
    problems += [f"{name} is unexpected" for name in tensors if name not in targets]
    problems += [
        f"{name} is {tuple(value.shape)}, expected {tuple(targets[name].shape)}"
        for name, value in tensors.items()
        if name in targets and value.shape != targets[name].shape
    ]
    if problems:
        raise InputError(f"the tensors of {method} do not fit: {'; '.join(problems)}")
    require_finite(tensors, f" of {method}")
    for name, target in targets.items():
        target.copy_(tensors[name])


def _path_rates(drop_path: float | Sequence[float], depth: int) -> list[float]:
    values = plain(drop_path)
    rates = (
        list(values) if isinstance(values, tuple) else torch.linspace(0, values, depth, dtype=torch.float64).tolist()
    )
    if len(rates) != depth:
        raise InputError(f"drop_path has {len(rates)} rates, but the backbone has {depth} blocks")
    if not all(0 <= rate < 1 for rate in rates):
        raise InputError(f"drop_path is {values}; a rate must be 0 or more, and below 1")
    return rates


def _official_name(name: str) -> str:
    for pattern, official in _NAMES:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, official, name)
    return name
