"""The CUDA settings of a run, as far as a machine without CUDA can test them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from shipbench.errors import DeviceLostError, InputError
from shipbench.explaining import explain
from shipbench.hardware import device
from shipbench.hardware.determinism import fix_workspace, seed_everything, uses_tf32
from shipbench.hardware.device import require_usable
from shipbench.hardware.memory import PeakMemory
from shipbench.results.store import Store
from shipbench.runs import evaluate
from shipbench.runs.evaluation_plan import EvaluationOptions
from tests.results.test_store import make_record

GPU = torch.device("cuda:1")
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@pytest.fixture
def settings_restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    # The attribute cannot be deleted, as monkeypatch would.
    torch.backends.cuda.matmul.allow_tf32 = True
    monkeypatch.setenv(WORKSPACE, ":16:8")
    before = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    yield
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = before  # type: ignore[attr-defined]


@pytest.mark.usefixtures("settings_restored")
def test_kernels_that_are_not_deterministic_raise_instead_of_warning() -> None:
    seed_everything(0, torch.device("cpu"))
    assert not torch.are_deterministic_algorithms_enabled()
    seed_everything(0, GPU)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()


@pytest.mark.usefixtures("settings_restored")
def test_no_run_inherits_tf32() -> None:
    assert uses_tf32(GPU)
    seed_everything(0, GPU)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not uses_tf32(GPU)
    torch.backends.cuda.matmul.allow_tf32 = True
    assert uses_tf32(GPU)
    assert not uses_tf32(torch.device("cpu"))


@pytest.mark.usefixtures("settings_restored")
@pytest.mark.parametrize("reader", [evaluate, explain])
def test_what_reads_the_weights_of_a_run_has_its_settings(reader: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    parent: Any = make_record(precision="fp32")
    monkeypatch.setattr(reader, "resolve_device", lambda name: torch.device(name))
    if reader is evaluate:
        planned: Any = SimpleNamespace(parent=parent, options=EvaluationOptions(device="cuda:1"))
        compute = evaluate.Scoring(planned).compute
    else:
        compute = explain.Explanation(Store("r"), parent, Path("w"), explain.ExplainOptions(device="cuda:1")).compute
    assert (compute.device, compute.precision) == (GPU, "fp32")
    assert not uses_tf32(GPU)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()


@pytest.mark.usefixtures("settings_restored")
def test_on_mps_torch_warns_of_kernels_that_are_not_deterministic() -> None:
    seed_everything(0, torch.device("mps"))
    assert torch.is_deterministic_algorithms_warn_only_enabled()


def imported(program: str) -> str:
    """Return what a new process without the variable prints that starts with ``program``."""
    environment = {name: value for name, value in os.environ.items() if name != WORKSPACE}
    code = f"import os, sys\n{program}\nprint(os.environ.get('{WORKSPACE}'), 'torch' in sys.modules)"
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_importing_shipbench_asks_cublas_for_fixed_workspaces_without_torch() -> None:
    assert imported("import shipbench") == ":4096:8 False"
    assert imported(f"os.environ['{WORKSPACE}'] = ':16:8'\nimport shipbench") == ":16:8 False"


def test_a_late_import_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    fix_workspace()
    with pytest.raises(InputError, match="restart Python and import shipbench first, or set CUBLAS_WORKSPACE_CONFIG="):
        seed_everything(0, GPU)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    fix_workspace()
    assert os.environ[WORKSPACE] == ":4096:8"
    monkeypatch.setenv(WORKSPACE, ":0:0")
    with pytest.raises(InputError, match="CUBLAS_WORKSPACE_CONFIG=:0:0 lets results differ"):
        seed_everything(0, GPU)


def test_cuda_is_initialised_before_its_statistics_are_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []
    monkeypatch.setattr(torch.cuda, "init", lambda: calls.append(("init", None)))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: calls.append(("reset", device)))
    PeakMemory(GPU)
    assert calls == [("init", None), ("reset", GPU)]


@pytest.mark.parametrize(
    ("message", "lost"),
    [
        ("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later", True),
        ("No CUDA GPUs are available", True),
        ("CUDA out of memory. Tried to allocate 2.00 MiB.", False),
        ("CUDA error: out of memory\nCUDA kernel errors might be reported later", False),
        (None, False),
    ],
)
def test_only_a_device_that_fails_every_operation_is_lost(
    monkeypatch: pytest.MonkeyPatch, message: str | None, lost: bool
) -> None:
    probed = list[str]()

    def probe(name: str) -> None:
        probed.append(name)
        if message is not None:
            raise RuntimeError(message)

    monkeypatch.setattr(device, "_probe", probe)
    for name in ("cpu", "mps"):
        require_usable(name)
    assert probed == []
    if lost:
        reason = str(message).partition("\n")[0]
        with pytest.raises(DeviceLostError, match=rf"^device cuda:1 of \S+ does not work \({reason}\)$"):
            require_usable("cuda:1")
    else:
        require_usable("cuda:1")
    assert probed == ["cuda:1"]


def test_auto_is_probed_where_it_is_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    probed = list[str]()
    monkeypatch.setattr(device, "_probe", probed.append)
    for available in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        require_usable("auto")
    assert probed == ["cuda"]
