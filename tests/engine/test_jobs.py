"""How many runs go on at a time: a pure choice from measurements, remembered, and the same for a continued grid."""

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
from shipbench.engine.jobs import candidates, choose, jobs_on_cpu, known_rates
from shipbench.engine.throughput import Workload, measure
from shipbench.errors import ShipbenchError
from shipbench.hardware.memory import available_memory
from shipbench.planning.plan import Plan, PlannedRun, State
from tests.conftest import Outcome
from tests.data.builders import vtab_tree
from tests.faults.grids import TIMES

Shipbench = Callable[..., Outcome]
TINY = ("--backbone", "test_vit", "--checkpoint", "random", "--set", "image_size=64", "--epochs", "1")
WORKLOAD = Workload("test_vit", 64, 16, "fp32")
# So many epochs that even a tiny backbone is worth a measurement.
LONG = {"image_size": 64, "epochs": 1_000_000}
GIGABYTE = 1e9


class Machine:
    """A stand-in for the measurement: gives the same rates and counts how often it was asked."""

    def __init__(self, rates: dict[int, float]) -> None:
        self.rates = rates
        self.asked: list[tuple[Workload, list[int]]] = []

    def __call__(self, workload: Workload, jobs: list[int], cores: int, memory: float) -> dict[int, float]:
        self.asked.append((workload, jobs))
        return self.rates


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Machine:
    """A machine of two cores that does more with one run on each."""
    machine = Machine({1: 10.0, 2: 15.0})
    monkeypatch.setattr(jobs, "measure", machine)
    monkeypatch.setattr(jobs, "usable_cores", lambda: 2)
    return machine


def planned(seeds: Iterable[int], left: int | None = None, **about: Any) -> Plan:
    """Return a plan of long runs, of which the last ``left`` are still to be done."""
    about = {"method": "vpt-deep", "backbone": "test_vit", "checkpoint": "random", "overrides": LONG, **about}
    about |= {"task": "dtd", "precision": "fp32"}
    runs = tuple(PlannedRun(RunSpec(seed=s, **about), f"{s:016x}", State.TO_DO) for s in seeds)
    return Plan(runs, runs if left is None else runs[len(runs) - left :])


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
def test_what_ends_soonest_with_the_fewest_runs_at_a_time(rates: dict[int, float], runs: int, jobs: int) -> None:
    assert choose(rates, [1.0] * runs) == jobs


def test_short_runs_beside_a_long_one_are_no_reason_to_divide_the_cores() -> None:
    rates = {1: 47.0, 2: 62.0}
    assert choose(rates, [100.0, 1.0, 1.0]) == 1
    assert choose(rates, [100.0, 1.0, 100.0]) == 2


def test_candidates_are_powers_of_two_and_all_cores() -> None:
    assert [candidates(cores) for cores in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


def test_a_continued_plan_has_the_same_choice(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert jobs_on_cpu(planned(range(6))) == 2
    assert "1 run with 2 threads 10 images/s, 2 runs with 1 thread 15 images/s: 2 at a time" in capsys.readouterr().err
    machine.rates = {1: 15.0, 2: 10.0}
    assert [jobs_on_cpu(planned(range(6), left)) for left in (5, 2, 1)] == [2, 2, 2]
    assert len(machine.asked) == 1
    assert machine.asked[0] == (Workload("test_vit", 64, 64, "fp32"), [1, 2])


@pytest.mark.parametrize(
    "plan",
    [
        planned(range(6), left=0),
        planned([0]),
        planned(range(6), overrides={"image_size": 64, "epochs": 100}),
        planned(range(6), method="linear"),
    ],
    ids=["done", "one run", "short", "on features"],
)
def test_nothing_is_measured_for(plan: Plan, machine: Machine) -> None:
    assert jobs_on_cpu(plan) == 1
    assert not machine.asked


def test_nothing_is_measured_with_one_core(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "usable_cores", lambda: 1)
    assert jobs_on_cpu(planned(range(6))) == 1
    assert not machine.asked


def test_threads_that_the_user_sets_are_what_is_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 6)
    monkeypatch.setattr("joblib.cpu_count", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [jobs.threads_of_each(jobs) for jobs in (1, 2, 3, 8)] == [4, 2, 1, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert [jobs.threads_of_each(jobs) for jobs in (1, 2, 3, 8)] == [6, 3, 2, 1]


def test_a_measurement_that_fails_means_one_run_at_a_time(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jobs, "measure", _refuse)
    assert jobs_on_cpu(planned(range(6))) == 1
    assert "one run at a time (--jobs N for more)" in capsys.readouterr().err


def _refuse(*_: object) -> NoReturn:
    raise ShipbenchError("this must not be measured")


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def _change_a_rate(file: Path) -> None:
    file.write_text(file.read_text().replace("15.0", "1.5"))


def _bring_from_elsewhere(file: Path) -> None:
    kept = json.loads(file.read_text())
    kept["about"]["processor"] = "another"
    kept["sha256"] = jobs._digest([kept["about"], kept["rates"]])
    file.write_text(json.dumps(kept))


@pytest.mark.parametrize("damage", [_truncate, _change_a_rate, _bring_from_elsewhere, Path.unlink])
def test_only_a_whole_entry_of_this_machine_is_remembered(
    machine: Machine, cache: Path, damage: Callable[[Path], None]
) -> None:
    assert known_rates(WORKLOAD, 2) == known_rates(WORKLOAD, 2) == machine.rates
    assert len(machine.asked) == 1
    damage(next((cache / "throughput").glob("*.json")))
    machine.rates = {1: 3.0, 2: 4.0}
    assert known_rates(WORKLOAD, 2) == known_rates(WORKLOAD, 2) == machine.rates
    assert len(machine.asked) == 2


def test_another_workload_or_number_of_cores_is_measured_for_itself(machine: Machine) -> None:
    for workload, cores in ((WORKLOAD, 2), (WORKLOAD, 4), (Workload("test_vit", 64, 32, "fp32"), 2)):
        known_rates(workload, cores)
    assert len(machine.asked) == 3


def test_real_processes_at_the_same_time_as_many_as_fit_into_memory() -> None:
    # A process that has imported torch takes a few hundred megabytes, and far less than ten gigabytes.
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


def test_a_process_that_ends_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert not machine.asked
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
