"""The device of these tests: ``--device``, the CPU unless the command line says otherwise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from shipbench.hardware.determinism import seed_everything
from shipbench.hardware.precision import ComputeContext


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The device under test, in the state in which runs use it."""
    name = request.config.getoption("--device")
    if name.startswith("cuda") and not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    place = torch.device(name)
    seed_everything(0, place)
    yield place
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=["fp32", "bf16"])
def compute(request: pytest.FixtureRequest, device: torch.device) -> ComputeContext:
    """The device in both precisions."""
    return ComputeContext(device, request.param)


@pytest.fixture
def recording(request: pytest.FixtureRequest, device: torch.device) -> None:
    """Steps that are recorded: as CUDA graphs on a CUDA device, on tapes elsewhere."""
    if device.type != "cuda":
        request.getfixturevalue("tapes")
