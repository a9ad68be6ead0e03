"""Tuning: grids, the rule and its ties, and the stored tuning."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipbench import RunSpec
from shipbench.errors import InputError, StoreError
from shipbench.methods import BuildContext, Built, Grid, Method, get_method, list_methods
from shipbench.planning.tuning import (
    FEWER_PARAMETERS,
    GRID_ORDER,
    Choice,
    Decision,
    Search,
    Trial,
    choose,
    collect,
    describe,
    ends_of_grid,
    make_searches,
    parse_grids,
    tuning_id,
)
from shipbench.results import claims, tunings
from shipbench.results.tunings import load_tunings, write_tuning
from shipbench.tasks import Task, get_task, parse_tasks
from tests.results.stale_lookups import hide_until_its_folder_changes
from tests.results.test_store import make_record

TEMPLATE = RunSpec("ship", "demo-tiny")


def trial(*accuracies: float, params: float = 100, error: str = "", name: str = "r") -> Trial:
    runs = tuple(f"{name}{i}" for i in range(len(accuracies)))
    return Trial({"lr": 0.1}, runs, accuracies, params, error)


def searches(methods: str, tasks: str, *grids: str, common: bool = False, **values: object) -> list[Search]:
    chosen: list[Method] = [get_method(name) for name in methods.split(",")]
    task_list: list[Task] = parse_tasks(tasks)
    return make_searches(chosen, task_list, grids, [0, 1], TEMPLATE, values, common=common)


def test_the_best_mean_over_seeds_wins() -> None:
    assert choose([trial(0.9, 0.1), trial(0.6, 0.5), trial(0.2, 0.3)]) == Choice(1)


def test_a_tie_goes_to_fewer_parameters_then_to_the_order_of_the_grid() -> None:
    lean, big = trial(0.5, params=10), trial(0.5, params=20)
    assert choose([big, lean]) == Choice(1, (0, 1), FEWER_PARAMETERS)
    assert choose([lean, lean]) == Choice(0, (0, 1), GRID_ORDER)
    assert choose([big, lean, lean]) == Choice(1, (0, 1, 2), f"{FEWER_PARAMETERS}, then {GRID_ORDER}")


def test_means_that_differ_by_rounding_alone_tie() -> None:
    assert 0.1 + 0.2 != 0.15 + 0.15
    assert choose([trial(0.1, 0.2, 0.3, params=2), trial(0.3, 0.15, 0.15, params=1)]).winner == 1


def test_one_image_of_many_tasks_and_seeds_decides() -> None:
    one_more = 1 / (19 * 5 * 200)
    assert choose([trial(0.5, params=1), trial(0.5 + one_more, params=2)]) == Choice(1)


def test_a_point_with_a_failed_run_cannot_win() -> None:
    broken = trial(1.0, math.nan, error="boom")
    assert choose([broken, trial(0.2, 0.3)]) == Choice(1)
    assert choose([broken]) == Choice(None)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)), min_size=1, max_size=12))
def test_the_rule_is_the_minimum_of_a_sort_key(points: list[tuple[int, int]]) -> None:
    trials = [trial(correct / 200, params=params) for correct, params in points]
    keys = [(-correct, params, i) for i, (correct, params) in enumerate(points)]
    assert choose(trials).winner == min(keys)[-1]


@pytest.mark.parametrize(
    ("values", "winner", "ends"),
    [
        ([3e-5, 1e-4, 3e-4], 0, {"lr": "lowest"}),
        ([3e-4, 3e-5, 1e-4], 0, {"lr": "highest"}),
        ([3e-5, 1e-4, 3e-4], 1, {}),
        ([3e-5, 1e-4, 3e-5], 0, {}),
        ([0, 0.1, 0.2], 0, {}),
        ([0, 0.1, 0.2], 2, {"lr": "highest"}),
        (["none", 0.1, 0.2], 2, {}),
        ([True, 2, 3], 2, {}),
    ],
)
def test_numbers_beyond_which_nothing_was_tried_are_told(values: list[Any], winner: int, ends: dict[str, str]) -> None:
    trials = [replace(trial(0.5), settings={"lr": value, "epochs": 4 + i % 2}) for i, value in enumerate(values)]
    assert ends_of_grid(trials, Choice(winner)) == ends
    (search,) = searches("linear", "dtd", "lr=0.1,0.01")
    assert describe(Decision(search, tuple(trials), Choice(winner)), [0])["ends_of_grid"] == ends
    assert ends_of_grid(trials, Choice(None)) == {}


def test_the_choice_follows_the_metric_that_the_task_has_now() -> None:
    methods, task = [get_method("linear")], get_task("folder:bugs")
    scores = ({"val_acc": 0.9, "val_mean_class_acc": 0.5}, {"val_acc": 0.8, "val_mean_class_acc": 0.6})
    for metric, accuracies in (("accuracy", [(0.9,), (0.8,)]), ("mean-per-class", [(0.5,), (0.6,)])):
        # The metric is not part of the run id, so the records may be of a task that had the other one.
        changed = replace(task, metric=metric)
        (search,) = make_searches(methods, [changed], ["lr=0.1,0.01"], [0], TEMPLATE, {}, common=False)
        ids = {spec: f"r{number}" for number, spec in enumerate(search.specs)}
        made = [make_record(run_id=f"r{number}", protocol="tuning", **each) for number, each in enumerate(scores)]
        trials = collect(search, ids, {record.run_id: record for record in made})
        assert [trial.accuracies for trial in trials] == accuracies
    without = replace(made[1], val_mean_class_acc=math.nan)
    trials = collect(search, ids, {"r0": made[0], "r1": without})
    assert trials[0].error == ""
    assert trials[1].error.startswith("its record has no validation accuracy by the metric of the task")
    assert choose(trials) == Choice(0)


def test_a_grid_is_a_product_in_the_order_given() -> None:
    (search,) = searches("linear", "dtd", "lr=0.1,0.01", "weight_decay=0,0.1")
    settings = [tuple(point.settings.values()) for point in search.points]
    assert settings == [(0.1, 0), (0.1, 0.1), (0.01, 0), (0.01, 0.1)]
    assert {spec.protocol for spec in search.specs} == {"tuning"}
    assert len(search.specs) == 4 * 2


def test_final_runs_carry_the_winner_to_every_seed() -> None:
    (search,) = searches("linear", "dtd,svhn", "lr=0.1,0.01", common=True, weight_decay="0.5")
    final = search.final_specs(1, [3, 4, 5])
    assert [(spec.task, spec.seed) for spec in final] == [
        (task, seed) for task in ("dtd", "svhn") for seed in (3, 4, 5)
    ]
    for spec in final:
        assert spec.protocol == "final"
        assert (spec.resolved.recipe.lr, spec.resolved.recipe.weight_decay) == (0.01, 0.5)


def test_a_search_per_method_and_task_or_one_for_all_tasks() -> None:
    assert len(searches("linear,vpt-deep", "dtd,svhn", "lr=0.1")) == 4
    for_all_tasks = searches("linear,vpt-deep", "dtd,svhn", "lr=0.1", common=True)
    assert [search.tasks for search in for_all_tasks] == [("dtd", "svhn")] * 2


def test_points_with_equal_settings_are_one_point() -> None:
    (search,) = searches("linear", "dtd", "lr=0.1,1e-1,0.10")
    assert len(search.points) == 1


NAMED_GRIDS = [(name, grid) for name in list_methods() for grid in get_method(name).grids()]


@pytest.mark.parametrize(("name", "grid"), NAMED_GRIDS)
def test_every_named_grid_resolves(name: str, grid: str) -> None:
    (search,) = searches(name, "dtd", grid)
    assert len(search.points) == math.prod(len(values) for values in search.axes.values())


def test_a_key_replaces_an_axis_of_a_named_grid() -> None:
    axes = parse_grids(["small", "prompt_length=7"], [get_method("vpt-deep")])["vpt-deep"]
    assert axes["prompt_length"] == ("7",)
    assert len(axes["lr"]) > 1


def test_a_key_applies_to_the_methods_with_that_setting() -> None:
    axes = parse_grids(["lr=1,2", "ship.prompt_length=3"], [get_method("ship"), get_method("linear")])
    assert axes == {"ship": {"lr": ("1", "2"), "prompt_length": ("3",)}, "linear": {"lr": ("1", "2")}}


class GridlessMethod(Method):
    """A method of another package, without grids."""

    name = "gridless"

    def grids(self) -> Mapping[str, Grid]:
        return {}

    def build(self, context: BuildContext) -> Built:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("grids", "words"),
    [
        (["lr"], "no grid 'lr'"),
        (["smal"], "did you mean 'small'"),
        (["=1"], "neither KEY=V1"),
        (["lr="], "neither KEY=V1"),
        (["lr=1", "lr=2"], "gives 'lr' twice"),
        (["promt_length=1"], "did you mean 'prompt_length'"),
        (["linear.lr=1"], "not among those of this command"),
        (["lr=1,2", "capture=auto,off"], "--grid: capture changes no result, so there is nothing to compare"),
    ],
)
def test_wrong_grids_are_refused(grids: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_grids(grids, [get_method("ship")])


def test_a_method_without_grids_is_tuned_by_keys_alone() -> None:
    method = GridlessMethod()
    assert parse_grids(["lr=1"], [method]) == {"gridless": {"lr": ("1",)}}
    with pytest.raises(InputError, match="it has none"):
        parse_grids(["small"], [method])


def test_a_method_without_anything_to_tune_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to tune for linear"):
        parse_grids(["prompt_length=1"], [get_method("ship"), get_method("linear")])


def test_a_setting_both_tuned_and_set_is_refused() -> None:
    with pytest.raises(InputError, match="lr is given twice"):
        searches("linear", "dtd", "lr=0.1,0.2", lr="0.3")


def document(*final_runs: str, trials: tuple[Trial, ...] = (trial(0.5), trial(0.6, name="s"))) -> dict[str, object]:
    (search,) = searches("linear", "dtd", "lr=0.1,0.01")
    return describe(Decision(search, trials, choose(trials)), [0], final_runs)


def test_a_tuning_is_stored_completely(tmp_path: Path) -> None:
    written = document("f0", "f1")
    path = write_tuning(tmp_path, written)
    assert load_tunings(tmp_path) == [written]
    assert [path.name] == [file.name for file in (tmp_path / "tuning").iterdir()]
    assert json.loads(path.read_text())["trials"][1]["val_acc"] == [0.6]


def test_the_metadata_that_a_mac_keeps_beside_a_tuning_are_none(tmp_path: Path) -> None:
    path = write_tuning(tmp_path, document("f0"))
    path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X\xff")
    assert len(load_tunings(tmp_path)) == 1


def test_a_folder_that_cannot_be_written_to_any_more_is_named(tmp_path: Path) -> None:
    (tmp_path / "tuning").write_text("a file in place of the folder")
    with pytest.raises(StoreError, match=r"cannot be written to any more .* run the same command again"):
        write_tuning(tmp_path, document("f0"))


def test_final_runs_accumulate_while_the_winner_stays_the_same(tmp_path: Path) -> None:
    write_tuning(tmp_path, document("f0"))
    write_tuning(tmp_path, document("f1", "f0"))
    assert load_tunings(tmp_path)[0]["final_runs"] == ["f0", "f1"]


def test_final_runs_of_a_winner_that_lost_later_are_kept_apart(tmp_path: Path) -> None:
    """A point whose runs failed at first may win when they are repeated."""
    other = {"winner_settings": {"lr": 0.7}}
    stored = []
    for decision in (document("f0"), document("g0") | other, document() | other, document("f1"), document("f0")):
        write_tuning(tmp_path, decision)
        (read,) = load_tunings(tmp_path)
        stored.append((read["final_runs"], read["earlier_final_runs"]))
    assert stored == [
        (["f0"], []),
        (["g0"], ["f0"]),
        (["g0"], ["f0"]),
        (["f1"], ["f0", "g0"]),
        (["f1", "f0"], ["g0"]),
    ]


def test_final_runs_that_another_machine_has_just_stored_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tuning(tmp_path, document("f0"))
    hide_until_its_folder_changes(path, monkeypatch)
    write_tuning(tmp_path, document("f1"))
    assert load_tunings(tmp_path)[0]["final_runs"] == ["f0", "f1"]
    assert [path.name] == [file.name for file in (tmp_path / "tuning").iterdir()]


def test_final_runs_of_a_winner_with_several_values_in_a_setting_accumulate(tmp_path: Path) -> None:
    for seed in "01":
        write_tuning(tmp_path, document(f"f{seed}") | {"winner_settings": {"parts": ("q", "v")}})
    (stored,) = load_tunings(tmp_path)
    assert (stored["final_runs"], stored["winner_settings"]) == (["f0", "f1"], {"parts": ["q", "v"]})


def test_commands_that_store_a_tuning_at_the_same_time_lose_no_final_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one starts when the first has read the file and not yet written it."""
    write_tuning(tmp_path, document("f0"))
    stored_or_waiting, read = threading.Event(), tunings._read

    def store_another() -> None:
        write_tuning(tmp_path, document("f2"))
        stored_or_waiting.set()

    another = threading.Thread(target=store_another)

    def read_and_let_another_begin(path: Path) -> dict[str, Any]:
        earlier = read(path)
        monkeypatch.setattr(tunings, "_read", read)
        another.start()
        assert stored_or_waiting.wait(60)
        return earlier

    monkeypatch.setattr(tunings, "_read", read_and_let_another_begin)
    monkeypatch.setattr(tunings, "say", lambda _: stored_or_waiting.set(), raising=False)
    monkeypatch.setattr(claims, "_WAIT_SECONDS", 0.01)
    write_tuning(tmp_path, document("f1"))
    another.join()
    assert load_tunings(tmp_path)[0]["final_runs"] == ["f0", "f1", "f2"]
    assert claims.holders(tmp_path) == {}


def test_a_failed_score_is_null_and_the_id_follows_from_the_runs(tmp_path: Path) -> None:
    broken = trial(math.nan, params=math.nan, error="boom")
    write_tuning(tmp_path, document(trials=(broken,)))
    assert load_tunings(tmp_path)[0]["trials"][0]["mean_val_acc"] is None
    (search,) = searches("linear", "dtd", "lr=0.1,0.01")
    compared = [broken, trial(0.9), replace(broken, runs=("other",))]
    ids = [tuning_id(Decision(search, (each,), Choice(None))) for each in compared]
    assert ids[0] == ids[1] == "b755c2714e331452" != ids[2]


def test_a_tuning_by_another_metric_has_a_file_of_its_own(tmp_path: Path) -> None:
    task, trials = get_task("folder:bugs"), (trial(0.5), trial(0.6, name="s"))
    for metric in ("accuracy", "mean-per-class"):
        changed = [replace(task, metric=metric)]
        (search,) = make_searches([get_method("linear")], changed, ["lr=0.1,0.2"], [0], TEMPLATE, {}, common=False)
        write_tuning(tmp_path, describe(Decision(search, trials, choose(trials)), [0]))
    ids = {stored["tuning_id"] for stored in load_tunings(tmp_path)}
    assert len(ids) == 2
    assert "fdce20846249f43c" in ids


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "tuning").mkdir()
    (tmp_path / "tuning" / "x.json").write_text("{")
    with pytest.raises(InputError, match=r"x\.json cannot be read"):
        load_tunings(tmp_path)
    (tmp_path / "tuning" / "x.json").write_text("[]")
    with pytest.raises(InputError, match="does not have the format"):
        load_tunings(tmp_path)


def test_a_folder_without_tunings_has_none(tmp_path: Path) -> None:
    assert load_tunings(tmp_path) == []
