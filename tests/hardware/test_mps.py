"""Apple's GPUs, as far as a machine without one can test them: choice, precision, waiting, memory, FLOPs, seeds."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from shipbench import RunSpec
from shipbench.bench.steps import environment
from shipbench.engine.jobs import Division, divide
from shipbench.errors import InputError
from shipbench.hardware.device import devices_for_workers, resolve_device
from shipbench.hardware.flops import count_flops
from shipbench.hardware.memory import PeakMemory, keep_freed_memory
from shipbench.hardware.precision import ComputeContext, precision_elsewhere, precision_on, resolve_precision
from shipbench.planning.plan import Plan, PlannedRun, State
from shipbench.prompting.stochastic_depth import DropFactors
from shipbench.training.inputs import _send
from shipbench.training.snapshot import random_states, set_random_states
from tests.conftest import Shipbench

MPS = torch.device("mps")


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("mac")
def test_auto_is_cuda_then_mps_then_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("auto") == resolve_device("mps") == MPS
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(InputError, match="device 'mps' is not available: it is the GPU of a Mac"):
        resolve_device("mps")


@pytest.mark.skipif(platform.system() == "Darwin", reason="a Mac may have the device")
def test_without_a_mac_the_command_refuses_before_anything(shipbench: Shipbench, tmp_path: Path) -> None:
    line = ("run", "--method", "ship", "--tasks", "demo-tiny", "--results", tmp_path / "r", "--device")
    outcome = shipbench(*line, "mps")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "device 'mps' is not available" in outcome.err
    assert not (tmp_path / "r").exists()
    assert "unknown device 'mps:0'; choose auto, cpu, mps, cuda or cuda:0" in shipbench(*line, "mps:0").err


@pytest.mark.usefixtures("mac")
def test_precision_is_fp32() -> None:
    for device in ("mps", "auto"):
        assert precision_on(device, "auto") == "fp32"
    assert [precision_elsewhere("mps", name) for name in ("auto", "fp32")] == ["fp32", "fp32"]
    refusals = (
        lambda: precision_on("mps", "bf16"),
        lambda: precision_elsewhere("mps", "bf16"),
        lambda: resolve_precision("bf16", MPS),
    )
    for refuse in refusals:
        with pytest.raises(InputError, match="runs on mps compute in fp32 only"):
            refuse()
    with pytest.raises(InputError, match="unknown precision 'fp16'"):
        precision_elsewhere("mps", "fp16")


def test_a_mac_plans_without_torch() -> None:
    program = """
import platform, sys
platform.system = lambda: "Darwin"
from shipbench.hardware.precision import precision_elsewhere, precision_on
assert precision_on("auto", "auto") == precision_elsewhere("mps", "auto") == "fp32"
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.usefixtures("mac")
def test_runs_go_one_after_the_other_and_are_not_stacked() -> None:
    specs = [RunSpec(method="ship", task="dtd", seed=seed, device="mps") for seed in range(4)]
    runs = tuple(PlannedRun(spec, str(spec.seed), State.TO_DO) for spec in specs)
    assert divide(Plan(runs, runs), None) == Division(1, divide(Plan(runs, runs), 1).threads)
    assert devices_for_workers(MPS, 2) == ["mps", "mps"]


def test_waiting_memory_and_random_states_are_those_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    state = torch.zeros(3, dtype=torch.uint8)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: calls.append("wait"))
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: calls.append("empty"))
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 12345)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: state)
    monkeypatch.setattr(torch.mps, "set_rng_state", calls.append)
    ComputeContext(MPS, "fp32").wait()
    keep_freed_memory(MPS)
    assert PeakMemory(MPS).bytes() == 12345
    set_random_states(random_states(MPS), MPS)
    assert calls[:2] == ["wait", "empty"]
    assert calls[2] is state


def test_figures_name_the_gpu_of_a_mac() -> None:
    assert environment(MPS)["device"] == f"MPS {platform.machine()}"


def test_attention_counts_as_on_other_devices() -> None:
    query, key, value = (torch.zeros(2, 3, tokens, 4, device="meta") for tokens in (5, 7, 7))
    fused = torch.ops.aten._scaled_dot_product_attention_math_for_mps
    assert count_flops(lambda: fused(query, key, value)) == 2 * 2 * (2 * 3 * 5 * 7 * 4)


class Copied:
    """Stands in for a tensor on the CPU; notes whether its copies are waited for."""

    device = torch.device("cpu")
    waits = False

    def to(self, device: torch.device, *, non_blocking: bool) -> Copied:
        """Return this object."""
        self.waits = not non_blocking
        return self


def test_copies_from_memory_that_may_be_freed_are_waited_for() -> None:
    images, factors = Copied(), Copied()
    _send(images, torch.device("mps"))()  # type: ignore[arg-type]
    DropFactors(factors, ()).to(torch.device("mps"))  # type: ignore[arg-type]
    assert images.waits
    assert factors.waits
