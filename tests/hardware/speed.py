"""How training steps on a CPU compare with the kernels that they replace: ``python -m tests.hardware.speed [--boft]``.

On a CPU without instructions for bf16, steps in bf16 are compared with steps that leave products in bf16 to torch.
``--boft`` compares BOFT with the layers of the peft library instead, in fp32 and in bf16.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Iterator
from unittest import mock

import torch

from shipbench.bench.candidates import build, candidates, make_fixture
from shipbench.bench.options import BenchOptions
from shipbench.bench.subjects import Subject
from shipbench.hardware import precision
from shipbench.hardware.precision import ComputeContext
from shipbench.methods import get_method
from tests.methods.test_peft_boft import with_layers_of_the_library

CPU = torch.device("cpu")
Step = Callable[[], object]


def main() -> None:
    """Print the images per second of each step, and the median ratio of the pairs' times, as a line of JSON a pair."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boft", action="store_true")
    parser.add_argument("--method", default="linear,vpt-deep,ship,lora,full,peft-boft")
    parser.add_argument("--backbone", default="vit_small_patch14_dinov2")
    parser.add_argument("--image-size", type=int, default=70)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bench = BenchOptions(
        options.backbone, "random", options.image_size, options.batch_size, drop_path=0.0, prompt_lengths=(10,)
    )
    pairs = _rotations(bench) if options.boft else _products(bench, options.method.split(","))
    for name, ours, other in pairs:
        seconds = [(_timed(ours), _timed(other)) for _ in range(options.repeats + 1)][1:]
        rates = [round(options.batch_size / statistics.median(times), 2) for times in zip(*seconds, strict=True)]
        ratio = statistics.median(slow / fast for fast, slow in seconds)
        print(json.dumps({"step": name, "images/s": rates, "ratio": round(ratio, 2)}), flush=True)


def _products(bench: BenchOptions, names: list[str]) -> Iterator[tuple[str, Step, Step]]:
    """Yield the step of each method in bf16, with products in fp32 and with those of torch."""

    def with_instructions(subject: Subject) -> None:
        with mock.patch.object(precision, "_has_bf16", return_value=True):
            subject.train()

    for name in names:
        subject = _subject(bench, name, "bf16")
        if not subject.batch.compute.lacks_bf16:
            raise SystemExit("this CPU is not one of x86 without instructions for bf16")
        yield f"{name}, bf16", subject.train, lambda subject=subject: with_instructions(subject)  # type: ignore[misc]


def _rotations(bench: BenchOptions) -> Iterator[tuple[str, Step, Step]]:
    """Yield the step of BOFT in each precision, with rotations by blocks and with those of the library."""
    for name in ("fp32", "bf16"):
        ours = _subject(bench, "peft-boft", name)
        dense = with_layers_of_the_library(ours.model)
        yield f"peft-boft, {name}", ours.train, dataclasses.replace(ours, model=dense, loss=dense.loss).train


def _subject(bench: BenchOptions, name: str, precision_name: str) -> Subject:
    backbone, batch = make_fixture(bench, ComputeContext(CPU, precision_name))
    return build(candidates([get_method(name)], bench, {})[1], bench, backbone, batch)


def _timed(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
