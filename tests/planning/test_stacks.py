"""Groups of planned runs that are trained together."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shipbench.engine.executors.local import stacks_for
from shipbench.planning.plan import PlannedRun, State
from shipbench.planning.stacks import Stacking, in_stacks, parse_stacking
from shipbench.spec import RunSpec


def planned(run_id: str, method: str = "ship", **changes: Any) -> PlannedRun:
    return PlannedRun(RunSpec(method=method, task=changes.pop("task", "dtd"), **changes), run_id, State.TO_DO)


def ids(stacks: list[tuple[PlannedRun, ...]]) -> list[list[str]]:
    return [[run.run_id for run in stack] for stack in stacks]


def test_seeds_rates_and_decays_go_together() -> None:
    runs = [
        planned("a"),
        planned("b", seed=1),
        planned("c", overrides={"lr": 0.5}),
        planned("d", overrides={"weight_decay": 0.5}),
    ]
    assert ids(in_stacks(runs, 4)) == [["a", "b", "c", "d"]]


def test_nothing_else_does() -> None:
    runs = [
        planned("a"),
        planned("b", overrides={"prompt_length": 5}),
        planned("c", overrides={"epochs": 5}),
        planned("d", overrides={"drop_path": 0.0}),
        planned("e", task="cifar100"),
        planned("f", method="vpt-deep"),
        planned("g", protocol="tuning"),
        planned("h", precision="bf16"),
        planned("i", checkpoint="random"),
        planned("j", backbone="test_vit"),
        planned("k", device="cuda:1"),
    ]
    assert ids(in_stacks(runs, 8)) == [[run.run_id] for run in runs]


def test_methods_that_cannot_be_stacked_are_not() -> None:
    runs = [planned(f"{method}{seed}", method, seed=seed) for method in ("linear", "full") for seed in (0, 1)]
    assert ids(in_stacks(runs, 4)) == [["linear0"], ["linear1"], ["full0"], ["full1"]]


def test_all_processes_get_a_stack() -> None:
    runs = [planned(str(seed), seed=seed) for seed in range(4)]
    assert ids(stacks_for(runs, Stacking(4), jobs=1)) == [["0", "1", "2", "3"]]
    assert ids(stacks_for(runs, Stacking(4), jobs=2)) == [["0", "1"], ["2", "3"]]


@given(st.integers(1, 12), st.integers(1, 6))
def test_stacks_are_as_few_and_as_even_as_can_be(count: int, most: int) -> None:
    runs = [planned(str(seed), seed=seed) for seed in range(count)]
    stacks = in_stacks(runs, most)
    sizes = [len(stack) for stack in stacks]
    assert [run for stack in stacks for run in stack] == runs
    assert len(sizes) == -(-count // most)
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1


def test_options() -> None:
    assert parse_stacking("off") == Stacking(1)
    assert parse_stacking("5") == Stacking(5)
    auto = parse_stacking("auto")
    assert auto.measured
    assert auto.on("cuda") == auto
    assert auto.on("cpu") == Stacking(1)
    assert parse_stacking("5").on("cpu") == Stacking(5)
