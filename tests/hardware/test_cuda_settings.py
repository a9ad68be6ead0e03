"""The CUDA settings of a run, as far as a machine without CUDA can test them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from shipbench.hardware.determinism import seed_everything
from shipbench.hardware.memory import PeakMemory

GPU = torch.device("cuda:1")


@pytest.fixture
def settings_restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    before = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = before  # type: ignore[attr-defined]


@pytest.mark.usefixtures("settings_restored")
def test_kernels_that_are_not_deterministic_raise_instead_of_warning() -> None:
    seed_everything(0, torch.device("cpu"))
    assert not torch.are_deterministic_algorithms_enabled()
    seed_everything(0, GPU)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.backends.cudnn.allow_tf32


def test_cuda_is_initialised_before_its_statistics_are_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []
    monkeypatch.setattr(torch.cuda, "init", lambda: calls.append(("init", None)))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: calls.append(("reset", device)))
    PeakMemory(GPU)
    assert calls == [("init", None), ("reset", GPU)]
