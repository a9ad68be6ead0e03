"""Groups of planned runs that are trained together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shipbench.engine.executors.local import most_in_a_stack
from shipbench.planning.plan import PlannedRun, State
from shipbench.planning.stacks import Stacking, in_stacks, parse_stacking, stacks_of_plan
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
        planned("l", data="elsewhere"),
        planned("m", shots=1),
        # The seed decides the images.
        planned("n", shots=1, seed=1),
        planned("o", task="folder:/a/bugs"),
        planned("p", task="folder:/b/bugs"),
    ]
    assert ids(in_stacks(runs, 8)) == [[run.run_id] for run in runs]


def test_methods_that_cannot_be_stacked_are_not() -> None:
    runs = [planned(f"{method}{seed}", method, seed=seed) for method in ("linear", "full") for seed in (0, 1)]
    assert ids(in_stacks(runs, 4)) == [["linear0"], ["linear1"], ["full0"], ["full1"]]


def test_all_processes_get_a_stack() -> None:
    assert [most_in_a_stack(Stacking(4), 4, jobs) for jobs in (1, 2, 3)] == [4, 2, 2]


def test_stacks_are_no_larger_than_memory() -> None:
    runs = [planned(str(seed), seed=seed) for seed in range(4)]
    assert ids(in_stacks(runs, 4, lambda run, count: count <= 2)) == [["0", "1"], ["2", "3"]]
    assert ids(in_stacks(runs, 4, lambda run, count: False)) == [["0"], ["1"], ["2"], ["3"]]


@given(st.sets(st.integers(0, 6), min_size=1), st.integers(1, 4))
def test_the_runs_that_are_left_keep_their_stacks(left: set[int], most: int) -> None:
    plan = [planned(str(seed), seed=seed) for seed in range(7)]
    whole = stacks_of_plan(plan, plan, most)
    rest = stacks_of_plan([plan[index] for index in sorted(left)], plan, most)
    assert {stack.runs for stack in rest} <= {stack.runs for stack in whole}
    assert [run for stack in rest for run in stack.due] == [plan[index] for index in sorted(left)]


def test_a_run_that_must_be_alone_leaves_its_stack() -> None:
    plan = [planned(str(seed), seed=seed) for seed in range(3)]
    alone = replace(plan[1], alone=True)
    (stack,) = stacks_of_plan([alone], plan, 3)
    assert (stack.runs, stack.due) == ((alone,), (alone,))


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
    assert auto.on("cuda") == auto
    assert auto.most == 4
    assert [auto.on(device) for device in ("cpu", "mps")] == [Stacking(1)] * 2
    assert parse_stacking("5").on("cpu") == Stacking(5)
