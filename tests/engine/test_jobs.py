"""The number of parallel runs: a pure choice from cached measurements, the same when a plan is continued."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import pytest

from shipbench import RunSpec, load_results
from shipbench.engine import jobs, throughput
from shipbench.engine.jobs import candidates, choose, jobs_on_cpu, throughput_rates
from shipbench.engine.throughput import Workload, measure
from shipbench.errors import ShipbenchError
from shipbench.events import Event, Note
from shipbench.hardware.memory import available_memory
from shipbench.planning.plan import Plan, PlannedRun, State
from tests.conftest import Outcome
from tests.data.builders import vtab_tree
from tests.faults.grids import TIMES

Shipbench = Callable[..., Outcome]
TINY = ("--backbone", "test_vit", "--checkpoint", "random", "--set", "image_size=64", "--epochs", "1")
WORKLOAD = Workload("test_vit", 64, 16, "fp32")
# Enough epochs to make even a tiny backbone worth a measurement.
LONG = {"image_size": 64, "epochs": 1_000_000}
GIGABYTE = 1e9


class Machine:
    """Stands in for the measurement: returns fixed rates and keeps the arguments of every call."""

    def __init__(self, rates: dict[int, float]) -> None:
        self.rates = rates
        self.calls: list[tuple[Workload, list[int]]] = []

    def __call__(self, workload: Workload, jobs: list[int], cores: int, memory: float) -> dict[int, float]:
        self.calls.append((workload, jobs))
        return self.rates


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Machine:
    """A machine of two cores, whose throughput is higher with one run on each."""
    machine = Machine({1: 10.0, 2: 15.0})
    monkeypatch.setattr(jobs, "measure", machine)
    monkeypatch.setattr(jobs, "usable_cores", lambda: 2)
    return machine


def planned(seeds: Iterable[int], remaining: int | None = None, **values: Any) -> Plan:
    """Return a plan of long runs, of which the last ``remaining`` are still to be done."""
    values = {"method": "vpt-deep", "backbone": "test_vit", "checkpoint": "random", "overrides": LONG, **values}
    values |= {"task": "dtd", "precision": "fp32"}
    runs = tuple(PlannedRun(RunSpec(seed=s, **values), f"{s:016x}", State.TO_DO) for s in seeds)
    return Plan(runs, runs if remaining is None else runs[len(runs) - remaining :])


class Notes:
    """A listener that keeps the texts of notes."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, event: Event, /) -> None:
        assert isinstance(event, Note)
        self.texts.append(event.text)


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


def test_a_continued_plan_has_the_same_choice(machine: Machine) -> None:
    notes = Notes()
    assert jobs_on_cpu(planned(range(6)), notes) == 2
    assert "1 run with 2 threads 10 images/s, 2 runs with 1 thread 15 images/s: 2 at a time" in notes.texts[-1]
    machine.rates = {1: 15.0, 2: 10.0}
    assert [jobs_on_cpu(planned(range(6), remaining), notes) for remaining in (5, 2, 1)] == [2, 2, 2]
    assert len(machine.calls) == 1
    assert machine.calls[0] == (Workload("test_vit", 64, 64, "fp32"), [1, 2])


@pytest.mark.parametrize(
    "plan",
    [
        planned(range(6), remaining=0),
        planned([0]),
        planned(range(6), overrides={"image_size": 64, "epochs": 100}),
        planned(range(6), method="linear"),
    ],
    ids=["done", "one run", "short", "on features"],
)
def test_nothing_is_measured_for(plan: Plan, machine: Machine) -> None:
    assert jobs_on_cpu(plan, Notes()) == 1
    assert not machine.calls


def test_nothing_is_measured_with_one_core(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "usable_cores", lambda: 1)
    assert jobs_on_cpu(planned(range(6)), Notes()) == 1
    assert not machine.calls


def test_the_threads_that_the_user_sets_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 6)
    monkeypatch.setattr("joblib.cpu_count", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [jobs.threads_per_job(count) for count in (1, 2, 3, 8)] == [4, 2, 1, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert [jobs.threads_per_job(count) for count in (1, 2, 3, 8)] == [6, 3, 2, 1]


def test_a_failed_measurement_means_one_run_at_a_time(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "measure", _refuse)
    notes = Notes()
    assert jobs_on_cpu(planned(range(6)), notes) == 1
    assert "one run at a time (--jobs N for more)" in notes.texts[-1]


def _refuse(*_: object) -> NoReturn:
    raise ShipbenchError("this must not be measured")


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def _change_a_rate(file: Path) -> None:
    file.write_text(file.read_text().replace("15.0", "1.5"))


def _bring_from_elsewhere(file: Path) -> None:
    entry = json.loads(file.read_text())
    entry["subject"]["processor"] = "another"
    entry["sha256"] = jobs._digest([entry["subject"], entry["rates"]])
    file.write_text(json.dumps(entry))


@pytest.mark.parametrize("damage", [_truncate, _change_a_rate, _bring_from_elsewhere, Path.unlink])
def test_only_an_intact_entry_of_this_machine_is_reused(
    machine: Machine, cache: Path, damage: Callable[[Path], None]
) -> None:
    assert [throughput_rates(WORKLOAD, 2, Notes()) for _ in range(2)] == [machine.rates] * 2
    assert len(machine.calls) == 1
    damage(next((cache / "throughput").glob("*.json")))
    machine.rates = {1: 3.0, 2: 4.0}
    assert [throughput_rates(WORKLOAD, 2, Notes()) for _ in range(2)] == [machine.rates] * 2
    assert len(machine.calls) == 2


def test_each_workload_and_number_of_cores_is_measured(machine: Machine) -> None:
    for workload, cores in ((WORKLOAD, 2), (WORKLOAD, 4), (Workload("test_vit", 64, 32, "fp32"), 2)):
        throughput_rates(workload, cores, Notes())
    assert len(machine.calls) == 3


def test_as_many_real_processes_as_fit_into_memory_are_measured() -> None:
    # A process that has imported torch takes a few hundred megabytes, far less than ten gigabytes.
    rates = measure(WORKLOAD, [1, 2, 200], cores=200, memory=20 * GIGABYTE, seconds=0.02)
    assert list(rates) == [1, 2]
    assert min(rates.values()) > 0


def test_one_process_is_measured_whatever_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Workload] = []
    monkeypatch.setattr(throughput, "_start", lambda workload, _: started.append(workload))
    monkeypatch.setattr(throughput, "_answer", lambda _: 1.0)
    monkeypatch.setattr(throughput, "_together", lambda workers, *_: len(workers))
    assert measure(WORKLOAD, [1, 2], cores=2, memory=0) == {1: 1.0}
    assert started == [WORKLOAD]


def test_a_measuring_process_that_ends_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", shutil.which("true"))
    with pytest.raises(ShipbenchError, match="could not be measured"):
        measure(WORKLOAD, [1, 2], cores=2, memory=20 * GIGABYTE)


def test_free_memory_is_known() -> None:
    assert 1e8 < available_memory() < 1e15


def test_a_continued_grid_has_the_records_of_an_undisturbed_one(
    shipbench: Shipbench, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_WORTH_FLOPS", 0)
    data = vtab_tree(tmp_path / "data", tasks=("dtd",))
    line = ("--method", "ship,vpt-deep", "--tasks", "dtd", "--data", data, "--results", tmp_path / "r")
    assert "2 to do" in shipbench("run", *TINY, *line, "--dry-run").err
    assert not machine.calls
    assert shipbench("run", *TINY, *line).code == 0
    undisturbed = load_results(tmp_path / "r").drop(columns=TIMES)
    assert list(undisturbed["threads"]) == [1, 1]
    monkeypatch.setattr(jobs, "measure", _refuse)
    next((tmp_path / "r" / "runs").glob("*.parquet")).unlink()
    outcome = shipbench("run", *TINY, *line, "--jobs", "auto")
    assert "1 to do, 1 done" in outcome.err
    assert "2 at a time" in outcome.err
    pd.testing.assert_frame_equal(load_results(tmp_path / "r").drop(columns=TIMES), undisturbed)
    assert "0 to do" in shipbench("run", *TINY, *line).err
