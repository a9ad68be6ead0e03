"""The numbers of a run depend on nothing that the calling program draws, sets or does at the same time."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch

from shipbench import RunSpec, load_results, run
from shipbench.engine.attempt import attempt
from shipbench.engine.supervisor import execute_plan
from shipbench.errors import InputError
from shipbench.events import EpochDone, Event, Finished, Listener
from shipbench.hardware.determinism import fix_kernels, undisturbed
from shipbench.planning.plan import Plan, PlannedRun, make_plan
from shipbench.record import RunRecord
from shipbench.results.store import Store
from tests.data.builders import vtab_tree

SEEDS = (0, 1)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], RunSpec]]:
    """A function from a seed to a run that draws masks in every step."""
    folder = tmp_path_factory.mktemp("undisturbed")
    settings = {"image_size": 64, "epochs": 2, "batch_size": 4, "drop_path": 0.3}
    chosen = {"backbone": "test_vit", "checkpoint": "random", "precision": "fp32", "overrides": settings}
    data = vtab_tree(folder / "data", tasks=("dtd",), n_train=10, n_test=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHIPBENCH_CACHE", str(folder / "cache"))
        yield lambda seed: RunSpec("ship", "dtd", seed=seed, data=data, **chosen)


@pytest.fixture(scope="module")
def expected(spec: Callable[[int], RunSpec]) -> list[tuple[float, float]]:
    """The numbers of the runs when nothing disturbs them."""
    return [numbers(run(spec(seed))) for seed in SEEDS]


def numbers(record: RunRecord) -> tuple[float, float]:
    return record.train_loss, record.final_test_acc


def test_a_listener_may_draw_random_numbers(
    spec: Callable[[int], RunSpec], expected: list[tuple[float, float]]
) -> None:
    def draw(event: Event, /) -> None:
        torch.rand(1)

    assert numbers(run(spec(0), listener=draw)) == expected[0]


def test_runs_in_several_threads_equal_runs_one_after_another(
    spec: Callable[[int], RunSpec], expected: list[tuple[float, float]]
) -> None:
    with ThreadPoolExecutor(len(SEEDS)) as threads:
        assert list(threads.map(lambda seed: numbers(run(spec(seed))), SEEDS)) == expected


class ThreadedExecutor:
    """An engine of another package, which attempts its runs in threads."""

    remote = False

    def check(self) -> None:
        """Accept everything."""

    def execute(self, runs: Sequence[PlannedRun], plan: Plan, results: Path, emit: Listener) -> None:
        with ThreadPoolExecutor(len(runs)) as threads:
            list(threads.map(lambda planned: attempt(planned, results, emit), runs))


def test_an_engine_may_attempt_runs_in_threads(
    spec: Callable[[int], RunSpec], expected: list[tuple[float, float]], tmp_path: Path
) -> None:
    plan = make_plan([spec(seed) for seed in SEEDS], Store(tmp_path), force=False, retry_failed=False)
    records = execute_plan(plan, tmp_path, ThreadedExecutor(), lambda event: None)
    assert list(map(numbers, records)) == expected
    assert set(load_results(tmp_path)["status"]) == {"done"}


@contextmanager
def in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "mode",
    [torch.no_grad, torch.inference_mode, in_float64, partial(torch.device, "meta")],
    ids=["no_grad", "inference_mode", "float64", "meta"],
)
def test_a_run_has_its_own_modes(
    spec: Callable[[int], RunSpec],
    expected: list[tuple[float, float]],
    mode: Callable[[], AbstractContextManager[object]],
) -> None:
    with mode():
        assert numbers(run(spec(0))) == expected[0]


@pytest.mark.parametrize("kind", ["cpu", "mps"])
def test_autocast_of_the_caller_is_refused(spec: Callable[[int], RunSpec], kind: str) -> None:
    with (
        torch.autocast(kind, dtype=torch.bfloat16),
        pytest.raises(InputError, match=r"torch\.autocast is on.*RunSpec\(precision=\.\.\.\)"),
    ):
        run(spec(0))


def test_no_run_inherits_a_choice_of_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    torch.backends.cuda.enable_flash_sdp(False)
    try:
        fix_kernels(torch.device("cpu"))
        assert not torch.backends.cudnn.benchmark
        assert torch.backends.cuda.flash_sdp_enabled()
    finally:
        torch.backends.cuda.enable_flash_sdp(True)


def test_a_listener_outside_of_the_run_leaves_the_draws_of_other_threads(
    spec: Callable[[int], RunSpec], expected: list[tuple[float, float]], tmp_path: Path
) -> None:
    """The end of a run reaches its listener while another thread's run draws its masks."""
    under_way, first_is_over = threading.Event(), threading.Event()
    plan = make_plan([spec(1)], Store(tmp_path), force=False, retry_failed=False)

    def pause(event: Event, /) -> None:
        if isinstance(event, EpochDone) and not under_way.is_set():
            under_way.set()
            assert first_is_over.wait(60)

    def run_another(event: Event, /) -> None:
        if isinstance(event, Finished):
            executor.submit(attempt, plan.runs[0], tmp_path, pause)
            assert under_way.wait(60)

    with ThreadPoolExecutor(1) as executor:
        run(spec(0), listener=run_another)
        first_is_over.set()
    record = Store(tmp_path).read(plan.runs[0].run_id)
    assert record is not None
    assert numbers(record) == expected[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_does_not_wait_for_threads_that_it_does_not_have() -> None:
    entered, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with undisturbed():
            entered.set()
            forked.wait(60)

    with ThreadPoolExecutor(1) as executor:
        executor.submit(hold)
        assert entered.wait(60)
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            with undisturbed():
                os._exit(0)
        _, status = os.waitpid(child, 0)
        forked.set()
    assert status == 0
