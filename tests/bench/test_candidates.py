"""Subjects of a benchmark that are built from merged models."""

from __future__ import annotations

import pytest
import torch

from shipbench.bench.candidates import Candidate, build, make_fixture
from shipbench.bench.options import BenchOptions
from shipbench.hardware.precision import ComputeContext
from shipbench.methods import get_method


@pytest.mark.parametrize(
    "name", ["resnet10t", "test_convnext", "test_efficientnet", "deit_tiny_distilled_patch16_224", "levit_128s"]
)
@pytest.mark.parametrize("method", ["linear", "peft-lora"])
def test_a_merged_model_of_any_classifier_is_the_backbone_with_other_weights(name: str, method: str) -> None:
    """A classifier has another name in each, and only some of what begins with its name belongs to it."""
    size = 224 if name.startswith(("deit", "levit")) else 64
    options = BenchOptions(name, "random", size, batch_size=1, num_classes=5, merged=True)
    backbone, batch = make_fixture(options, ComputeContext(torch.device("cpu"), "fp32"))
    subject = build(Candidate(get_method(method), None, {}, merged=True), options, backbone, batch)
    with torch.no_grad():
        torch.testing.assert_close(subject.model(batch.images), backbone(batch.images), rtol=1e-4, atol=1e-4)
