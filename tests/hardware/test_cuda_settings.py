"""The CUDA settings of a run, as far as a machine without CUDA can test them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from shipbench.bench import end_to_end, memory, parts, steps
from shipbench.bench.candidates import Candidate
from shipbench.bench.options import BenchOptions, EndToEndOptions, PartOptions
from shipbench.bench.timing import timed
from shipbench.engine import stacked
from shipbench.errors import DeviceLostError, InputError, StoreError
from shipbench.events import DISCARD
from shipbench.explaining import explain
from shipbench.hardware import device
from shipbench.hardware.determinism import any_kernel, fix_workspace, seed_everything, uses_tf32
from shipbench.hardware.device import require_usable
from shipbench.hardware.memory import PeakMemory, device_memory, free_memory
from shipbench.hardware.precision import ComputeContext, resolve_precision
from shipbench.methods import get_method
from shipbench.planning.stacks import Stack
from shipbench.results.store import Store
from shipbench.runs import evaluate, session
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
@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch before 2.9 has one switch alone")
@pytest.mark.parametrize("library", [torch.backends, torch.backends.cudnn, torch.backends.mkldnn])
def test_no_run_inherits_the_precision_of_a_library(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "fp32_precision", "tf32")
    seed_everything(0, GPU)
    cuda, cudnn, cpu = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    operations: tuple[Any, ...] = (cuda.matmul, cudnn.conv, cudnn.rnn, cpu.matmul, cpu.conv, cpu.rnn)
    assert {operation.fp32_precision for operation in operations} == {"ieee"}
    assert not uses_tf32(GPU)
    # It raises an error if the switches contradict each other.
    assert torch.get_float32_matmul_precision() == "highest"


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


@pytest.mark.usefixtures("settings_restored")
@pytest.mark.parametrize("warn_only", [False, True])
def test_a_block_may_use_any_kernel(warn_only: bool) -> None:
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    with any_kernel():
        assert not torch.are_deterministic_algorithms_enabled()
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled() == warn_only
    torch.use_deterministic_algorithms(False)
    with any_kernel():
        assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


def test_figures_name_the_gpu_as_records_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: {1: "NVIDIA H200"}[device.index])
    assert steps.environment(GPU)["device"] == device.device_name(GPU) == "cuda: NVIDIA H200"


def stack_of(prepared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempt a stack whose first run is ``prepared``."""
    run: Any = SimpleNamespace(run_id="a1")
    claimed = SimpleNamespace(emitter=DISCARD)
    monkeypatch.setattr(stacked, "claim_planned", lambda *_: nullcontext(claimed))
    monkeypatch.setattr(stacked, "prepare_planned", lambda run: prepared)
    stacked.attempt_stack(Stack((run, run), (run,)), Path("r"), lambda event: None)


def single(prepared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train the ``prepared`` run."""
    session.train(prepared, session.Start(DISCARD))


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that raises an error with the CUDA devices that have been made the current one, and are it still."""
    current = list[torch.device]()

    @contextmanager
    def device(device: torch.device) -> Iterator[None]:
        current.append(device)
        yield
        current.pop()

    def stop(*arguments: object) -> None:
        raise StoreError(f"stopped on {current}")

    monkeypatch.setattr(torch.cuda, "device", device)
    return stop


@pytest.mark.usefixtures("settings_restored")
@pytest.mark.parametrize("attempt", [single, stack_of])
def test_a_training_makes_its_gpu_the_current_one(
    attempt: Any, stop: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (session, stacked):
        monkeypatch.setattr(module, "PeakMemory", stop)
    prepared = SimpleNamespace(
        compute=ComputeContext(GPU, "fp32"), resolved=SimpleNamespace(spec=SimpleNamespace(seed=0))
    )
    with pytest.raises(StoreError, match=re.escape(f"stopped on {[GPU]}")):
        attempt(prepared, monkeypatch)


OPTIONS = BenchOptions("test_vit", "random", 64)


def bench_steps(stop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure the steps of no method."""
    monkeypatch.setattr(steps, "make_fixture", stop)
    steps.run_bench([], OPTIONS, ComputeContext(GPU, "fp32"), {}, print)


def bench_memory(stop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure the memory of a step, as a new process does."""
    monkeypatch.setattr(memory, "make_fixture", stop)
    monkeypatch.setattr(memory, "leave_signals_to_the_parent", lambda: None)
    sender: Any = None
    compute, threads = ComputeContext(GPU, "fp32"), torch.get_num_threads()
    memory._send_step_bytes(sender, Candidate(None, None, {}), OPTIONS, compute, threads)


def bench_whole_run(stop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure a whole run."""
    monkeypatch.setattr(end_to_end, "resolve_device", torch.device)
    monkeypatch.setattr(end_to_end, "write_images", stop)
    end_to_end.run_end_to_end(get_method("linear"), EndToEndOptions("test_vit", device="cuda:1"))


def bench_part(stop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a part of ``shipbench bench --all``, which reports its error."""
    monkeypatch.setattr(parts, "PARTS", {"steps": stop})
    monkeypatch.setattr(parts, "write_part", lambda *_, **__: None)
    said = list[str]()
    parts.run_part("steps", PartOptions(OPTIONS, GPU, Path("r"), (), {}), said.append)
    raise StoreError(*said)


@pytest.mark.parametrize("measure", [bench_steps, bench_memory, bench_whole_run, bench_part])
def test_a_benchmark_makes_its_gpu_the_current_one(
    measure: Any, stop: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match=re.escape(f"stopped on {[GPU]}")):
        measure(stop, monkeypatch)


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


def test_memory_of_a_gpu_is_that_of_its_own_index(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_the_gpu(value: Any) -> Callable[[torch.device], Any]:
        return {GPU: value}.__getitem__

    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", of_the_gpu(None))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", of_the_gpu(5))
    monkeypatch.setattr(torch.cuda, "memory_allocated", of_the_gpu(3))
    monkeypatch.setattr(torch.cuda, "memory_reserved", of_the_gpu(7))
    monkeypatch.setattr(torch.cuda, "mem_get_info", of_the_gpu((10, 99)))
    monkeypatch.setattr(torch.cuda, "get_device_properties", of_the_gpu(SimpleNamespace(total_memory=99)))
    assert PeakMemory(GPU).bytes() == 5
    # What the allocator has kept is free for new tensors of this process.
    assert free_memory(GPU) == 10 + (7 - 3)
    assert device_memory(GPU) == 99


@pytest.mark.parametrize(
    ("capability", "precision"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((8, 6), "bf16"), ((9, 0), "bf16")]
)
def test_auto_is_bf16_from_ampere_on(
    capability: tuple[int, int], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", {GPU: capability}.__getitem__)
    assert resolve_precision("auto", GPU) == precision
    assert [resolve_precision(name, GPU) for name in ("fp32", "bf16")] == ["fp32", "bf16"]


def test_a_clock_waits_for_the_gpu_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = list[torch.device]()
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    for _ in range(2):
        timed(lambda: None, ComputeContext(GPU, "fp32"))
    # Before the work and after it.
    assert waited == [GPU] * 4


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
