"""The speed of the fast path relative to the literal loop: ``python -m tests.reference.speed [--repeats N]``.

Both take turns on the same weights, batch and stochastic-depth masks, and must compute the same loss. Both use
PyTorch's default memory handling or, with ``--keep-freed-memory``, that of shipbench's runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from shipbench.backbones import load_backbone
from shipbench.hardware.memory import keep_freed_memory
from shipbench.methods.ship import Ship, ShipConfig
from shipbench.prompting import drop_rates, sample_drop_factors
from tests.reference.ship import Settings, forward


def main() -> None:
    """Time a training step (forward and backward) of both and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="vit_base_patch16_224.orig_in21k")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--prompt-length", type=int, default=50)
    parser.add_argument("--drop-path", type=float, default=0.1)
    parser.add_argument("--levels", type=int, nargs="+", default=[0, 2, 4, 6, 8, 11])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--keep-freed-memory", action="store_true", help="keep freed memory in the process, as runs of shipbench do"
    )
    options = parser.parse_args()
    if options.keep_freed_memory:
        keep_freed_memory(torch.device("cpu"))
    torch.manual_seed(0)
    vit = load_backbone(options.backbone, checkpoint="random", drop_path=options.drop_path)
    bank = torch.randn(200, vit.embed_dim)
    model = Ship(vit, 100, options.levels, bank, ShipConfig(prompt_length=options.prompt_length)).train()
    size = int(vit.patch_embed.img_size[0])
    images, labels = torch.randn(options.batch_size, 3, size, size), torch.randint(100, (options.batch_size,))
    factors = sample_drop_factors(drop_rates(vit), options.batch_size)
    settings = Settings(tuple(options.levels))
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def fast() -> Tensor:
        return model.loss_terms(images, labels, factors).total

    def literal() -> Tensor:
        loss = forward(vit, parameters, settings, images, labels, bank=bank, drop_factors=factors).loss
        assert loss is not None
        return loss

    seconds: dict[str, list[float]] = {"fast": [], "literal": []}
    for index in range(options.repeats + 1):
        losses = {}
        for name, work in (("fast", fast), ("literal", literal)):
            losses[name], spent = _step(model, work)
            seconds[name] += [spent] if index else []
        assert abs(losses["fast"] - losses["literal"]) < 1e-4, losses
    ratios = [slow / quick for slow, quick in zip(seconds["literal"], seconds["fast"], strict=True)]
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(
        json.dumps(
            {"seconds": medians, "literal / fast": statistics.median(ratios), "threads": torch.get_num_threads()}
        )
    )


def _step(model: Ship, work: Callable[[], Tensor]) -> tuple[float, float]:
    model.zero_grad(set_to_none=True)
    start = time.perf_counter()
    loss = work()
    loss.backward()
    return float(loss.detach()), time.perf_counter() - start


if __name__ == "__main__":
    main()
