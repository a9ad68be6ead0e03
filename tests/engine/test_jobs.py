"""The number of parallel runs and of their threads: a fixed rule for a plan and a machine."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from shipbench import RunSpec, load_results
from shipbench.backbones import load_backbone
from shipbench.engine import jobs
from shipbench.engine.cost import estimated_bytes, estimated_flops, forward_flops
from shipbench.engine.executors.local import LocalExecutor, fits_on
from shipbench.engine.executors.registry import EngineOptions
from shipbench.engine.jobs import Division, candidates, choose, divide, jobs_now
from shipbench.hardware.memory import available_memory, total_memory
from shipbench.planning.plan import Plan, PlannedRun, State
from shipbench.planning.stacks import Stacking
from shipbench.tasks import get_task
from tests.conftest import Shipbench
from tests.data.builders import vtab_tree
from tests.faults.grids import TIMES

TINY = ("--backbone", "test_vit", "--checkpoint", "random", "--set", "image_size=64", "--epochs", "1")
# Enough epochs to make even a tiny backbone worth several processes.
LONG = {"image_size": 64, "epochs": 1_000_000}
GIGABYTE = 1e9


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(jobs, "usable_cores", lambda: 2)


def planned(seeds: Iterable[int], remaining: int | None = None, **values: Any) -> Plan:
    """Return a plan of long runs, of which the last ``remaining`` are still to be done."""
    values = {"method": "vpt-deep", "backbone": "test_vit", "checkpoint": "random", "overrides": LONG, **values}
    values = {"task": "dtd", "precision": "fp32", "device": "cpu", **values}
    runs = tuple(PlannedRun(RunSpec(seed=s, **values), f"{s:016x}", State.TO_DO) for s in seeds)
    return Plan(runs, runs if remaining is None else runs[len(runs) - remaining :])


@pytest.mark.parametrize(
    ("rates", "runs", "jobs"),
    [
        ({1: 47, 2: 62}, 6, 2),
        ({1: 47, 2: 50}, 6, 1),
        ({1: 62, 2: 47}, 6, 1),
        ({1: 40}, 6, 1),
        ({1: 10, 2: 18, 4: 30, 8: 40}, 16, 8),
        ({1: 10, 2: 18, 4: 30, 8: 40}, 4, 4),
        ({1: 10, 2: 18, 4: 30, 8: 31}, 16, 4),
        ({1: 10, 2: 18, 4: 30, 8: 40}, 9, 4),
    ],
)
def test_the_fewest_parallel_runs_that_finish_soonest(rates: dict[int, float], runs: int, jobs: int) -> None:
    assert choose(rates, [1.0] * runs) == jobs


def test_short_runs_beside_a_long_one_do_not_divide_the_cores() -> None:
    rates = {1: 47.0, 2: 62.0}
    assert choose(rates, [100.0, 1.0, 1.0]) == 1
    assert choose(rates, [100.0, 1.0, 100.0]) == 2


def test_candidates_are_powers_of_two_and_all_cores() -> None:
    assert [candidates(cores) for cores in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


@pytest.mark.parametrize(
    ("cores", "runs", "division"), [(2, 6, (2, 1)), (2, 1, (1, 2)), (16, 32, (16, 1)), (16, 8, (8, 2))]
)
def test_several_long_runs_fill_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, runs: int, division: tuple[int, int]
) -> None:
    monkeypatch.setattr(jobs, "usable_cores", lambda: cores)
    monkeypatch.setattr(jobs, "total_memory", lambda: 1000 * GIGABYTE)
    assert divide(planned(range(runs)), None) == Division(*division)


@pytest.mark.parametrize(("device", "jobs"), [("cuda", 3), ("cuda:1", 1), ("mps", 1)])
def test_every_gpu_executes_one_run_at_a_time(device: str, jobs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipbench.engine.jobs.resolve_device", torch.device)
    monkeypatch.setattr("shipbench.engine.jobs.usable_cores", lambda: 12)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert divide(planned(range(6), device=device), None) == Division(jobs, 12 // jobs)


@pytest.mark.usefixtures("two_cores")
def test_a_continued_plan_has_the_same_division(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [divide(planned(range(6), remaining), None) for remaining in (6, 5, 1)] == [Division(2, 1)] * 3
    assert divide(planned(range(6)), 1) == Division(1, 2)
    assert divide(planned(range(2)), 8) == Division(2, 1)


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize(
    "plan",
    [
        planned([0]),
        planned(range(6), overrides={"image_size": 64, "epochs": 100}),
        planned(range(6), method="linear"),
    ],
    ids=["one run", "short", "on features"],
)
def test_all_cores_execute(plan: Plan) -> None:
    assert divide(plan, None) == Division(1, 2)


@pytest.mark.usefixtures("two_cores")
def test_memory_in_use_changes_the_workers_but_not_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(range(6))
    run = estimated_bytes(plan.runs[0])
    monkeypatch.setattr(jobs, "available_memory", lambda: 1.3 * run)
    assert divide(plan, None) == Division(2, 1)
    assert jobs_now(plan.runs, 2) == 1
    monkeypatch.setattr(jobs, "available_memory", lambda: 0.0)
    assert jobs_now(plan.runs, 2) == 1
    monkeypatch.setattr(jobs, "total_memory", lambda: 1.3 * run)
    assert divide(plan, None) == Division(1, 2)


@pytest.mark.usefixtures("two_cores")
def test_a_system_that_does_not_tell_its_memory_sets_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Windows does, which has no sysconf."""
    monkeypatch.setattr(jobs, "total_memory", lambda: math.inf)
    monkeypatch.setattr(jobs, "available_memory", lambda: math.inf)
    plan = planned(range(6))
    assert divide(plan, None) == Division(2, 1)
    assert jobs_now(plan.runs, 2) == 2


def test_memory_grows_with_images_and_runs() -> None:
    small, large = (planned([0], overrides={**LONG, "batch_size": size}).runs[0] for size in (16, 64))
    assert estimated_bytes(small, 4) == estimated_bytes(large)
    # 17 tokens and 10 prompts of 64 channels in 6 blocks, 22 numbers of 4 bytes each, for 48 images more.
    tokens = (64 // 16) ** 2 + 1 + 10
    assert estimated_bytes(large) - estimated_bytes(small) == pytest.approx(48 * 22 * 4 * tokens * 64 * 6)
    # A weight, its gradient and two moments; and the process.
    weights = sum(p.numel() for p in load_backbone("test_vit", checkpoint="random", image_size=64).parameters())
    assert estimated_bytes(small) == pytest.approx(0.8 * GIGABYTE + 16 * weights + 16 * 22 * 4 * tokens * 64 * 6)


@pytest.mark.parametrize(("backbone", "tokens"), [("test_vit", 17), ("vit_small_patch16_dinov3", 21)])
def test_each_prompt_takes_the_memory_of_a_token(backbone: str, tokens: int) -> None:
    def growth(method: str) -> float:
        """The bytes of 48 images in a batch."""
        sizes = [{"image_size": 64, "batch_size": size} for size in (16, 64)]
        runs = [planned([0], method=method, backbone=backbone, overrides=size).runs[0] for size in sizes]
        small, large = map(estimated_bytes, runs)
        return large - small

    assert growth("vpt-deep") == pytest.approx((1 + 10 / tokens) * growth("linear"))


def test_a_stack_takes_at_most_four_fifths_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = planned([0]).runs
    for memory, fitting in ((estimated_bytes(run, 3) / 0.8, 3), (estimated_bytes(run, 3) / 0.81, 2)):
        monkeypatch.setattr("shipbench.engine.executors.local.device_memory", lambda _, memory=memory: memory)
        fits = fits_on(torch.device("cuda:0"), 1)
        assert max(count for count in range(1, 5) if fits(run, count)) == fitting


def test_in_bf16_images_take_half_the_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ViT-B/16 with batches of 64: one run in fp32 on 24 GB, three in bf16; and four on 40 GB."""
    model = {"backbone": "vit_base_patch16_224", "overrides": {"batch_size": 64}}
    (run,) = planned([0], **model).runs
    (planned_in_bf16,) = planned([0], precision="bf16", **model).runs
    resolved = replace(planned([0], precision="auto", **model).runs[0], precision="bf16")
    for memory, fitting in ((24e9, [1, 3, 3]), (40e9, [2, 4, 4])):
        monkeypatch.setattr("shipbench.engine.executors.local.device_memory", lambda _, memory=memory: memory)
        fits = fits_on(torch.device("cuda:0"), 1)
        runs = (run, planned_in_bf16, resolved)
        assert [max(count for count in range(1, 5) if fits(each, count)) for each in runs] == fitting


@pytest.mark.parametrize(
    ("device", "jobs", "sizes"), [("cuda", 2, [4, 4]), ("cuda", 3, [2] * 4), ("cuda:1", 2, [2] * 4)]
)
def test_processes_on_a_gpu_share_its_memory(
    device: str, jobs: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two GPUs, each with memory for two processes with two runs each, or for one with four."""
    plan = planned(range(8), device=device)
    memory = 2 * estimated_bytes(plan.runs[0], 2) / 0.8
    monkeypatch.setattr("shipbench.engine.executors.local.resolve_device", torch.device)
    monkeypatch.setattr("shipbench.engine.executors.local.device_memory", lambda _: memory)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    executor = LocalExecutor(EngineOptions(stacking=Stacking(4, automatic=True)))
    assert [len(stack.runs) for stack in executor._stacks(plan.runs, plan, jobs)] == sizes


def test_the_arithmetic_of_a_run_is_that_of_its_images() -> None:
    def images(method: str = "vpt-deep", **values: Any) -> float:
        (run,) = planned([0], method=method, **values).runs
        return estimated_flops(run) / forward_flops(run.spec)

    task = get_task("dtd")
    # Forward and backward, for 5 epochs; then the test images once.
    settings = {"image_size": 64, "epochs": 5}
    assert images(overrides=settings) == pytest.approx(10 * task.n_train + task.n_test)
    assert images(overrides={**settings, "data_share": 0.1}) == pytest.approx(task.n_train + task.n_test)
    # A linear probe computes the features of every image once.
    assert images("linear", overrides=settings) == pytest.approx(task.n_train + task.n_test)
    # Those of augmented images change in every epoch, and need no backward pass.
    birds = get_task("cub-200-2011")
    assert images("linear", task=birds.name, overrides=settings) == pytest.approx(5 * birds.n_train + birds.n_test)


def test_the_threads_that_the_user_sets_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 6)
    monkeypatch.setattr("joblib.cpu_count", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [jobs.threads_per_job(count) for count in (1, 2, 3, 8)] == [4, 2, 1, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert [jobs.threads_per_job(count) for count in (1, 2, 3, 8)] == [6, 3, 2, 1]


def test_memory_is_known() -> None:
    assert 1e8 < available_memory() <= total_memory() < 1e15


def test_no_clock_changes_threads_or_records(
    shipbench: Shipbench, two_cores: None, forked_workers: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grid, and the rest of it on a machine whose clock goes wild: the same threads, stacks and records."""
    monkeypatch.setattr(jobs, "_WORTH_FLOPS", 0)
    data = vtab_tree(tmp_path / "data", tasks=("dtd",))
    line = ("--method", "ship,vpt-deep", "--tasks", "dtd", "--data", data, "--results", tmp_path / "r")
    outcome = shipbench("run", *TINY, *line)
    assert outcome.code == 0, outcome.err
    assert "2 runs at a time with 1 thread each (change it with --jobs N)" in outcome.err
    undisturbed = load_results(tmp_path / "r").drop(columns=TIMES)
    assert list(undisturbed["threads"]) == [1, 1]
    next((tmp_path / "r" / "runs").glob("*.parquet")).unlink()
    ticks = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks) ** 3))
    outcome = shipbench("run", *TINY, *line, "--jobs", "auto")
    assert "1 to do, 1 done" in outcome.err
    pd.testing.assert_frame_equal(load_results(tmp_path / "r").drop(columns=TIMES), undisturbed)
    assert "0 to do" in shipbench("run", *TINY, *line).err
