"""The numbers of a run depend on nothing that the calling program draws, sets or does at the same time."""

from __future__ import annotations

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
from shipbench.events import Event, Listener
from shipbench.hardware.determinism import fix_kernels
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


def test_autocast_of_the_caller_is_refused(spec: Callable[[int], RunSpec]) -> None:
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
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
