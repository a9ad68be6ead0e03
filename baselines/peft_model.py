"""A backbone with the layers of a tuner of the ``peft`` library, and a new head."""

from __future__ import annotations

import copy
import dataclasses
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Literal

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from shipbench.adapting import with_head
from shipbench.backbones import feature_width, pooled_features
from shipbench.errors import InputError
from shipbench.hardware.determinism import any_kernel
from shipbench.methods import BuildContext, Built
from shipbench.prompting import new_head
from shipbench.prompting.full_precision import full_precision
from shipbench.prompting.kernels import attention_of_modules
from shipbench.settings import whole_number

from .peft_checks import refuse_fewer_factors, refuse_unfit_layers, refusing
from .peft_layers import feedforward_layers, target_layers
from .peft_library import Variant

_ADAPTER = "default"
_SEEDS = 2**31


class PeftModel(nn.Module):
    """A backbone into which ``tuner`` has put its layers, and a new head; images are normalised (B, 3, H, W).

    ``layers`` are the names of the backbone's layers that the tuner has wrapped. Stochastic depth is timm's. Some
    tuners compute norms or products of frozen weights at every step, so these stay in fp32.
    """

    reads_frozen_weights: Literal[True] = True

    def __init__(self, tuner: Any, layers: Sequence[str], width: int, num_classes: int) -> None:
        super().__init__()
        self.tuner = tuner
        self.layers = tuple(layers)
        self.head = new_head(width, whole_number("num_classes", num_classes, 1))

    @property
    def backbone(self) -> Any:
        """The timm model with the tuner's layers."""
        return self.tuner.model

    def train(self, mode: bool = True) -> PeftModel:
        """Set the training mode of the head, the tuner's layers and stochastic depth; the rest stays in evaluation."""
        super().train(mode)
        self.backbone.eval()
        for module in self.backbone.modules():
            if isinstance(module, DropPath):
                module.train(mode)
        for name in self.layers:
            layer = self.backbone.get_submodule(name)
            # What the tuner adds is trained, and the layer that it wraps is not.
            layer.train(mode)
            getattr(layer, "base_layer", layer).eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        with attention_of_modules(self.backbone, images.device):
            return self.head(pooled_features(self.backbone, images))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy, a scalar."""
        return F.cross_entropy(self(images), labels)

    def merged_state(self) -> dict[str, Tensor]:
        """Return the state of the plain timm model that computes the same.

        Raises ``InputError`` for a tuner that the library cannot merge, and as ``with_head`` does.
        """
        tuner = copy.deepcopy(self.tuner).eval()
        merged = refusing(tuner.merge_and_unload, "the library cannot merge this tuner into the backbone")
        weights = {name: value.clone() for name, value in merged.state_dict().items()}
        return with_head(weights, self.head, merged)


class AdaLora(PeftModel):
    """AdaLoRA, whose ranks shrink from ``init_r`` to ``target_r`` in training, and its orthogonality term.

    The library keeps the importance of each weight in Python objects; buffers of the model make it part of a snapshot.
    """

    def __init__(self, tuner: Any, layers: Sequence[str], width: int, num_classes: int) -> None:
        super().__init__(tuner, layers, width, num_classes)
        self._adapted = {name: p for name, p in self.backbone.named_parameters() if p.requires_grad}
        for index, parameter in enumerate(self._adapted.values()):
            self.register_buffer(f"importance_{index}", torch.zeros_like(parameter))
            self.register_buffer(f"uncertainty_{index}", torch.zeros_like(parameter))
            self.register_buffer(f"kept_{index}", torch.ones(len(parameter), dtype=torch.bool))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return cross-entropy + weight * mean of |A A^T - I| and |B^T B - I| (Frobenius norms) over all layers."""
        return super().loss(images, labels) + self._config.orth_reg_weight * self._deviation()

    def _deviation(self) -> Tensor:
        # With ``bias``, biases of the layers are among the trained tensors.
        named = [(name, p) for name, p in self._adapted.items() if "lora_A" in name or "lora_B" in name]
        factors = [p.T if "lora_B" in name else p for name, p in named]
        with full_precision(factors[0].device):
            grams = [factor @ factor.T for factor in factors]
            norms = [torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device)) for gram in grams]
        return torch.stack(norms).mean()

    @property
    def _config(self) -> Any:
        return self.tuner.peft_config[_ADAPTER]

    def after_step(self, step: int, steps: int) -> None:
        """Let the library update importances and shrink ranks after a step.

        Raises ``InputError`` if the run has too few steps for ``tinit`` and ``tfinal``.
        """
        allocator = self.tuner.rankallocator
        if steps <= self._config.tinit + self._config.tfinal:
            raise InputError(
                f"tinit={self._config.tinit} and tfinal={self._config.tfinal} leave none of the run's {steps} steps to "
                "shrink ranks; set them lower"
            )
        allocator.set_total_step(steps)
        allocator.exp_avg_ipt, allocator.exp_avg_unc = self._stored("importance"), self._stored("uncertainty")
        allocator.ipt = dict(allocator.exp_avg_ipt)
        self._config.rank_pattern = {name: kept.tolist() for name, kept in self._stored("kept").items()}
        # Before torch 2.10, CUDA's kthvalue counts as not deterministic for its index, which the library ignores.
        with any_kernel():
            self.tuner.update_and_allocate(step)
        self._store("importance", allocator.exp_avg_ipt)
        self._store("uncertainty", allocator.exp_avg_unc)
        self._store("kept", {name: torch.tensor(kept) for name, kept in self._config.rank_pattern.items()})

    def _stored(self, kind: str) -> dict[str, Tensor]:
        return {name: self.get_buffer(f"{kind}_{index}") for index, name in enumerate(self._adapted)}

    def _store(self, kind: str, values: Mapping[str, Tensor]) -> None:
        for name, buffer in self._stored(kind).items():
            if name in values:
                buffer.copy_(values[name])


class Boft(PeftModel):
    """BOFT, whose linear layers rotate their inputs block by block."""

    def __init__(self, tuner: Any, layers: Sequence[str], width: int, num_classes: int) -> None:
        super().__init__(tuner, layers, width, num_classes)
        from .peft_boft import BlockRotated

        for name in layers:
            BlockRotated.replace(self.backbone.get_submodule(name))


class Frod(PeftModel):
    """FRoD, whose frozen factors U follow from the eigenvectors V, which are stored, and from the weights."""

    def __init__(self, tuner: Any, layers: Sequence[str], width: int, num_classes: int) -> None:
        super().__init__(tuner, layers, width, num_classes)
        # Another processor may have computed the V that are loaded, with other signs.
        self.register_load_state_dict_post_hook(lambda model, _: model.factorise())  # type: ignore[no-untyped-call]

    def factorise(self) -> None:
        """Compute U of every layer from its V."""
        for name in self.layers:
            layer: Any = self.backbone.get_submodule(name)
            factors, _ = layer._calculate_frod_u_and_lambda(layer.frod_V[_ADAPTER], layer.get_base_layer().weight)
            layer.frod_U[_ADAPTER].copy_(factors)


class Psoft(PeftModel):
    """PSOFT, whose frozen factors are singular vectors; their signs differ between processors, so they are stored."""

    def __init__(self, tuner: Any, layers: Sequence[str], width: int, num_classes: int) -> None:
        super().__init__(tuner, layers, width, num_classes)
        for layer in layers:
            for module in self.backbone.get_submodule(layer).modules():
                for name, buffer in list(module.named_buffers(recurse=False)):
                    module.register_buffer(name, buffer, persistent=True)


_MODELS: Mapping[str, type[PeftModel]] = {"adalora": AdaLora, "boft": Boft, "frod": Frod, "psoft": Psoft}


def build_peft(variant: Variant, context: BuildContext) -> Built:
    """Return the model of a tuner with its facts: the seed of what the library draws, and the library's version.

    The library draws parts that are not trained and that not every tuner stores; with the seed, an exported model draws
    the same. Raises ``InputError`` for layers that do not fit the tuner.
    """
    backbone = context.backbone
    seed = context.known.get("peft_seed", int(torch.randint(_SEEDS, ())))
    layers = target_layers(backbone, context.settings.target_modules, norms=variant.tuner.acts_on_norms)
    config = _config(variant, context.settings, layers)
    width = feature_width(backbone)
    # Some tuners start from singular vectors of the weights, whose signs differ between devices.
    place = next(backbone.parameters()).device
    backbone.cpu()
    with torch.random.fork_rng(), _silence():
        torch.manual_seed(seed)
        tuner = refusing(lambda: _wrapped(backbone, config), f"{variant.method} does not fit these layers")
        refuse_unfit_layers(variant, tuner.model, layers)
    refuse_fewer_factors(variant, config, tuner.model.get_submodule(layers[0]), _ADAPTER)
    model = _MODELS.get(variant.tuner.name, PeftModel)(tuner, layers, width, context.num_classes).to(place)
    return Built(model, {"peft_seed": seed, "peft_version": version("peft")})


def _config(variant: Variant, settings: Any, layers: Sequence[str]) -> Any:
    """Return the library's configuration for ``settings`` on ``layers``."""
    import peft

    values: dict[str, Any] = {
        **dataclasses.asdict(settings),
        **variant.fixed,
        **_decided(variant, settings),
        "target_modules": _pattern(layers),
    }
    if "feedforward_modules" in values:
        values["feedforward_modules"] = _pattern(feedforward_layers(settings.feedforward_modules, layers))
    return refusing(lambda: _configuration_class(variant, peft)(**values), f"{variant.method} has no such settings")


def _decided(variant: Variant, settings: Any) -> dict[str, Any]:
    """Return fields that are no settings: a placeholder for AdaLoRA's number of steps, and no progress bar."""
    if variant.tuner.name == "adalora":
        return {"total_step": settings.tinit + settings.tfinal + 1}
    return {"progressbar": False} if "progressbar" in variant.tuner.settings else {}


def _pattern(layers: Sequence[str]) -> str:
    """Return a pattern of these names alone; the library takes the names of a list for the last parts of others."""
    return "|".join(map(re.escape, layers))


def _configuration_class(variant: Variant, peft: Any) -> Any:
    kind = peft.PeftType(variant.tuner.name.upper())
    return peft.PEFT_TYPE_TO_CONFIG_MAPPING[kind]


def _wrapped(backbone: nn.Module, config: Any) -> Any:
    import peft

    return peft.get_peft_model(backbone, config).base_model


@contextmanager
def _silence() -> Iterator[None]:
    """Suppress warnings, and what torch logs where BOFT finds a CUDA compiler and no GPU."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
