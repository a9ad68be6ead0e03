"""The main table: every number is recomputed from the raw records in plain Python."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest

from shipbench.errors import InputError
from shipbench.published import published_rows
from shipbench.report import ReportOptions, build_report, main_table
from shipbench.report.document import Report, Row, Table
from shipbench.tasks.catalogue import DEMO, VTAB
from tests.report.builders import DEMO_TASKS, METHODS, VTAB_TASKS, grid, make_record, make_results, table_named

Records = list[dict[str, Any]]
NATURAL = [task.name for task in VTAB.tasks if task.group == "Natural"]


def report_of(records: Records, **options: Any) -> Report:
    return build_report(make_results(records), None, ReportOptions(**options))


def table_of(records: Records, **options: Any) -> Table:
    return table_named("main-vtab-1k", records, "results", **options)


def texts(table: Table, label: str) -> dict[str, str]:
    row = next(row for row in table.rows if row.cells[0].text == label)
    return {column.key: cell.text + cell.sign for column, cell in zip(table.columns, row.cells, strict=True)}


def below(table: Table, label: str) -> dict[str, str]:
    row = next(row for row in table.rows if row.cells[0].text == label)
    return {column.key: cell.below for column, cell in zip(table.columns, row.cells, strict=True)}


def marks(table: Table, column: str) -> dict[str, str]:
    index = [c.key for c in table.columns].index(column)
    return {row.cells[0].text: row.cells[index].mark for row in table.rows if row.kind == "ours"}


def accuracies(records: Records, method: str, task: str) -> list[float]:
    return [100 * r["final_test_acc"] for r in records if (r["method"], r["task"]) == (method, task)]


def task_mean(records: Records, method: str, task: str) -> float:
    return statistics.fmean(accuracies(records, method, task))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"statistic": "deviations"}, r"unknown statistic 'deviations' \(did you mean 'deviation'\?\)"),
        ({"suite": "vtab"}, r"unknown suite 'vtab' \(did you mean 'vtab-1k'\?\)"),
        ({"select": "best"}, "unknown rule 'best'"),
        ({"imported": "some"}, "unknown choice 'some'"),
    ],
)
def test_an_unknown_name_gives_no_other_table(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        main_table(make_results(grid(["ship"], VTAB_TASKS, (0,))), **wrong)


def test_a_suite_of_the_catalogue_without_runs_has_no_rows() -> None:
    assert len(main_table(make_results(grid(["ship"], VTAB_TASKS, (0,))), suite="demo")) == 0


def test_every_cell_and_mean_is_recomputed() -> None:
    records = grid(METHODS, VTAB_TASKS, (0, 1, 2))
    table = table_of(records)
    names = dict(zip(METHODS, ("Full fine-tuning", "Linear probe", "VPT-shallow", "VPT-deep", "SHIP"), strict=True))
    for method, label in names.items():
        shown, deviations = texts(table, label), below(table, label)
        for task in VTAB_TASKS:
            values = accuracies(records, method, task)
            assert shown[task] == f"{statistics.fmean(values):.1f}"
            assert deviations[task] == f"±{statistics.stdev(values):.1f}"
        means = {task: task_mean(records, method, task) for task in VTAB_TASKS}
        groups = {
            g: [means[t.name] for t in VTAB.tasks if t.group == g] for g in ("Natural", "Specialized", "Structured")
        }
        for group, values in groups.items():
            assert shown[group] == f"{statistics.fmean(values):.1f}"
        of_groups = statistics.fmean(statistics.fmean(values) for values in groups.values())
        assert shown["mean of groups"] == f"{of_groups:.1f}"
        assert shown["mean of tasks"] == f"{statistics.fmean(means.values()):.1f}"


def test_deviation_of_an_average_is_over_the_seeds_own_averages() -> None:
    records = grid(("ship",), VTAB_TASKS, (0, 1, 2))
    per_seed = [statistics.fmean(100 * r["final_test_acc"] for r in records if r["seed"] == seed) for seed in (0, 1, 2)]
    assert below(table_of(records), "SHIP")["mean of tasks"] == f"±{statistics.stdev(per_seed):.1f}"


def test_deviations_of_groups_and_of_their_mean_are_over_the_seeds_own_means() -> None:
    # Values that rise evenly over three seeds have their step as deviation.
    steps = {"Natural": 1.0, "Specialized": -2.0, "Structured": 3.0}
    records = [
        make_record("ship", task.name, seed, 0.5 + seed * steps[task.group] / 100)
        for task in VTAB.tasks
        for seed in (0, 1, 2)
    ]
    shown = main_table(make_results(records), statistic="deviation").loc["SHIP"]
    assert [shown[group] for group in steps] == pytest.approx([1, 2, 3])
    assert shown["mean of groups"] == pytest.approx((1 - 2 + 3) / 3)
    assert shown["mean of tasks"] == pytest.approx((7 * 1 - 4 * 2 + 8 * 3) / 19)


def test_deleting_a_task_empties_its_means_and_shows_the_gap() -> None:
    records = [r for r in grid(("full", "ship"), VTAB_TASKS, (0, 1)) if (r["method"], r["task"]) != ("full", "kitti")]
    table = table_of(records)
    shown = texts(table, "Full fine-tuning")
    assert shown["kitti"] == "–"  # noqa: RUF001
    assert [shown[name] for name in ("Structured", "mean of groups", "mean of tasks")] == ["", "", ""]
    assert shown["Natural"] == f"{statistics.fmean(task_mean(records, 'full', t) for t in NATURAL):.1f}"
    assert [name for name, text in texts(table, "SHIP").items() if not text] == ["mean_of_these_tasks"]


def test_a_lost_seed_is_marked_where_it_is_missing() -> None:
    records = [r for r in grid(("ship",), VTAB_TASKS, (0, 1, 2)) if (r["task"], r["seed"]) != ("dtd", 2)]
    table = table_of(records)
    assert any(note.startswith("† fewer seeds than") for note in table.notes)
    shown = texts(table, "SHIP")
    assert shown["dtd"] == f"{task_mean(records, 'ship', 'dtd'):.1f}†"
    assert shown["Natural"].endswith("†")
    assert shown["mean of tasks"].endswith("†")
    assert not shown["Structured"].endswith("†")


def test_best_and_second_are_compared_as_printed() -> None:
    accuracy = {"full": 0.70004, "linear": 0.70001, "vpt-deep": 0.65, "ship": 0.6}
    records = [make_record(method, task, 0, value) for method, value in accuracy.items() for task in VTAB_TASKS]
    result = marks(table_of(records), "cifar100")
    assert result == {"Full fine-tuning": "best", "Linear probe": "best", "VPT-deep": "second", "SHIP": ""}


def test_equal_columns_and_single_rows_have_no_best() -> None:
    assert set(marks(table_of([make_record()]), "cifar100").values()) == {""}
    equal = [make_record(method) for method in ("full", "ship")]
    assert set(marks(table_of(equal), "cifar100").values()) == {""}


def test_parameters_are_means_over_tasks_with_and_without_the_head() -> None:
    counts = {"dtd": (1_000_000, 900_000), "svhn": (2_000_000, 1_950_000)}
    records = [
        make_record(task=task, seed=seed, trainable_params=with_head, trainable_params_without_head=without)
        for task, (with_head, without) in counts.items()
        for seed in ((0, 1) if task == "dtd" else (0,))
    ]
    records.append(make_record(task="kitti", status="failed", trainable_params=0, trainable_params_without_head=0))
    shown = texts(table_of(records), "SHIP")
    assert shown["trainable_params"] == "1.50"
    assert shown["trainable_params_without_head"] == "1.43"


def test_suites_have_tables_of_their_own_and_only_vtab_has_published_rows() -> None:
    records = grid(("ship",), VTAB_TASKS[:2], (0,)) + grid(("ship",), DEMO_TASKS, (0,))
    tables = {table.name: table for table in report_of(records).tables()}
    both = tables["main-vtab-1k"], table_of(records)
    assert len({tuple(cell.text for row in table.rows for cell in row.cells) for table in both}) == 1
    assert not set(DEMO_TASKS) & {column.key for column in tables["main-vtab-1k"].columns}
    assert not set(VTAB_TASKS) & {column.key for column in tables["main-demo"].columns}
    assert {row.kind for row in tables["main-demo"].rows} == {"ours"}


def test_demo_captions_carry_the_disclaimer() -> None:
    report = report_of(grid(("full", "ship", "linear"), DEMO_TASKS, (0, 1)))
    items = [item for section in report.sections[:-1] for item in section.items]
    assert items
    assert all(DEMO.caution in item.caption.alone for item in items)
    assert DEMO.caution in report.lead
    assert DEMO.caution not in report_of(grid(("ship",), VTAB_TASKS, (0,))).lead


def test_the_frame_has_the_tables_numbers_unrounded() -> None:
    records = [r for r in grid(METHODS, VTAB_TASKS, (0, 1)) if (r["method"], r["task"]) != ("full", "dtd")]
    frame = main_table(make_results(records))
    assert list(frame.index) == ["Full fine-tuning", "Linear probe", "VPT-shallow", "VPT-deep", "SHIP"]
    assert frame.loc["SHIP", "svhn"] == pytest.approx(task_mean(records, "ship", "svhn"), abs=1e-9)
    assert math.isnan(frame.loc["Full fine-tuning", "mean of groups"])
    assert frame.loc["SHIP", "trainable_params"] == 300_000
    deviations = main_table(make_results(records), statistic="deviation")
    expected = statistics.stdev(accuracies(records, "ship", "svhn"))
    assert deviations.loc["SHIP", "svhn"] == pytest.approx(expected)
    assert main_table(make_results(records), statistic="seeds").loc["SHIP", "svhn"] == 2


def test_known_averages_of_published_rows_loaded_as_records() -> None:
    rows = published_rows()
    records = [
        make_record(f"method-{i:02d}", task, 0, accuracy / 100)
        for i, row in enumerate(rows)
        for task, accuracy in row.accuracy_percent.items()
    ]
    frame = main_table(make_results(records))
    vpt = frame.iloc[[row.method for row in rows].index("VPT-Deep")]
    assert (vpt["mean of groups"], vpt["mean of tasks"]) == pytest.approx((71.97, 69.426), abs=6e-4)


def test_the_long_form_has_every_record_once() -> None:
    records = [*grid(("ship", "linear"), VTAB_TASKS[:3], (0, 1)), make_record(task="kitti", status="failed")]
    results = report_of(records).results
    assert sorted(results["run_id"]) == sorted(r["run_id"] for r in records)
    values = results.set_index("run_id")
    assert values.loc[records[0]["run_id"], "accuracy"] == records[0]["final_test_acc"]
    assert math.isnan(values.loc[records[-1]["run_id"], "accuracy"])


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([make_record(accuracy=76.3)], "fractions from 0 to 1"),
        ([{"method": "ship"}], "no column 'run_id'"),
        ([{**make_record(), "seed": "x"}], "whole number as its seed"),
        ([], "no records"),
    ],
)
def test_records_that_cannot_be_used_are_refused(records: Records, message: str) -> None:
    with pytest.raises(InputError, match=message):
        report_of(records)


def test_an_unknown_baseline_is_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'ship'"):
        report_of([make_record()], baseline="shipp")


def test_missing_and_failed_runs_are_named() -> None:
    records = [r for r in grid(("ship",), VTAB_TASKS, (0, 1)) if (r["task"], r["seed"]) != ("dtd", 1)]
    records.append(make_record(task="dtd", seed=1, status="failed", error="out of\nmemory"))
    records = [r for r in records if r["task"] != "kitti"]
    rows = [[cell.text for cell in row.cells] for row in table_named("missing", records, "records").rows]
    assert ["failed", "SHIP", "DTD", "1", "out of memory"] in rows
    assert ["missing", "SHIP", "KITTI-Dist", "0, 1", "no finished run"] in rows
    assert len(rows) == 2


def test_a_cell_with_runs_that_do_not_count_says_so() -> None:
    records = grid(("ship",), DEMO_TASKS, (0,))
    records[0] |= {"protocol": "tuning", "final_test_acc": None, "best_test_acc": None}
    records = [record for record in records if record["task"] != DEMO_TASKS[1]]
    rows = {row.cells[4].text: row.cells[0].text for row in table_named("missing", records, "records").rows}
    assert rows["no finished run that the rule counts"] == rows["no finished run"] == "missing"
    assert 'protocol "tuning": no accuracy under the rule "final"' in rows


@pytest.mark.parametrize(
    ("suite", "tasks", "size", "planned"),
    [
        ("vtab-1k", VTAB_TASKS, 224, {"image_size": 0}),
        ("demo", DEMO_TASKS, 70, {"image_size": 70, "cfg.image_size": 70}),
    ],
)
def test_a_run_that_failed_before_its_preparation_counts_in_the_row_of_its_method(
    suite: str, tasks: tuple[str, ...], size: int, planned: dict[str, Any]
) -> None:
    normalised = {"cfg.mean": "0.5,0.5,0.5", "cfg.std": "0.5,0.5,0.5"}
    known: dict[str, Any] = {"image_size": size, "cfg.image_size": size, **normalised}
    lost = {"final_test_acc": math.nan, "best_test_acc": math.nan}
    failed: dict[str, Any] = {"status": "failed", "error": "killed", **lost, **planned}
    records = grid(("full", "ship"), tasks, (0,), **known)
    records += [make_record("ship", tasks[2], 1, **failed), make_record("linear", tasks[2], 0, **failed)]
    tables = {table.name: table for table in report_of(records).tables()}
    table = tables[f"main-{suite}"]
    own = row_labels([row for row in table.rows if row.kind == "ours"])
    assert set(own) <= {"Full fine-tuning", "Linear probe", "SHIP"}
    assert texts(table, "SHIP")[tasks[2]].endswith("†")
    assert not texts(table, "Full fine-tuning")[tasks[2]].endswith("†")
    rows = [[cell.text for cell in row.cells] for row in tables["missing"].rows]
    assert [row[1] for row in rows if row[0] == "failed"] == ["Linear probe", "SHIP"]
    shown = [cell.text for row in tables["settings"].rows for cell in row.cells]
    assert not any(" 0 px" in text for text in shown)


def test_a_row_without_some_tasks_has_a_mean_apart_from_complete_rows() -> None:
    parts = grid(("full", "linear"), VTAB_TASKS[:5], (0, 1))
    records = [*grid(("vpt-deep", "ship"), VTAB_TASKS, (0, 1)), *parts]
    table = table_of(records, published="all")
    labels = {"full": "Full fine-tuning", "linear": "Linear probe", "vpt-deep": "VPT-deep", "ship": "SHIP"}
    shown = {method: texts(table, label)["mean_of_these_tasks"] for method, label in labels.items()}
    means = {m: statistics.fmean(task_mean(records, m, task) for task in VTAB_TASKS[:5]) for m in ("full", "linear")}
    assert shown == {**{method: f"{mean:.1f}" for method, mean in means.items()}, "vpt-deep": "", "ship": ""}
    assert table.columns[-3].title == "mean of these 5 tasks"
    assert set(marks(table, "mean_of_these_tasks").values()) == {""}
    assert "The mean of these 5 tasks compares with nothing but itself: complete rows leave it blank." in table.notes
    assert {len(row.cells) for row in table.rows} == {len(table.columns)}


def test_rows_with_other_tasks_say_how_many_their_mean_has() -> None:
    lengths = {"full": 5, "linear": 18, "vpt-deep": 1, "ship": 19}
    records = grid(tuple(lengths), VTAB_TASKS, (0,))
    table = table_of([r for r in records if r["task"] in VTAB_TASKS[: lengths[r["method"]]]])
    counts = {row.cells[0].text: row.cells[-3].below for row in table.rows if row.kind == "ours"}
    assert counts == {"Full fine-tuning": "5 tasks", "Linear probe": "18 tasks", "SHIP": "", "VPT-deep": ""}
    assert any("that of a row with other tasks" in note for note in table.notes)


def test_rows_with_the_same_part_of_a_suite_compare() -> None:
    table = table_of(grid(("vpt-deep", "ship"), VTAB_TASKS[:5], (0, 1)))
    assert marks(table, "mean_of_these_tasks") == {"VPT-deep": "second", "SHIP": "best"}
    assert not any("mean of these" in note or "no finished run" in note for note in table.notes)
    complete = table_of(grid(("ship",), VTAB_TASKS, (0,)))
    assert "mean_of_these_tasks" not in {column.key for column in complete.columns}


@pytest.mark.parametrize("lacking", [(), ("ship",)])
def test_imported_rows_with_another_part_of_a_suite_change_no_other_row(lacking: tuple[str, ...]) -> None:
    records = [*grid(("vpt-deep", "ship"), VTAB_TASKS[:3], (0, 1)), *grid(lacking, VTAB_TASKS[3:], (0, 1))]
    foreign = {"kind": "imported", "origin": "csv", "epoch_rule": "final"}
    imported = [*grid(("lora",), VTAB_TASKS[:3], (0,), **foreign), *grid(("ssf",), VTAB_TASKS[:4], (0,), **foreign)]
    alone, beside = table_of(records), table_of(records + imported)
    place = [column.key for column in alone.columns].index("mean_of_these_tasks")
    assert beside.columns[place].title == alone.columns[place].title == "mean of these 3 tasks"
    own = [[row.cells[place] for row in table.rows if row.kind == "ours"] for table in (alone, beside)]
    assert own[0] == own[1]
    assert [cell.mark for cell in own[0]] == (["", ""] if lacking else ["second", "best"])
    others = {row.cells[0].text.split(" ")[0]: row.cells[place] for row in beside.rows if row.kind == "imported"}
    assert {name: cell.below for name, cell in others.items()} == {"LoRA": "", "SSF": "4 tasks"}
    assert any(note.startswith("In a row with a number of tasks below") for note in beside.notes)


def row_labels(rows: list[Row]) -> list[str]:
    return [row.cells[0].text for row in rows]


def test_recipes_weights_and_sizes_are_never_averaged_together() -> None:
    variants: dict[str, dict[str, Any]] = {
        "published recipe": {"recipe": "published"},
        "another backbone": {"backbone": "another backbone"},
        "weights ffffffff": {"backbone_sha256": "f" * 64},
        "384 px": {"image_size": 384},
        "tuned": {"protocol": "validation"},
    }
    for detail, variant in variants.items():
        records = grid(("ship",), VTAB_TASKS, (0, 1)) + [
            {**r, **variant, "final_test_acc": 0.9, "run_id": r["run_id"] + "x"}
            for r in grid(("ship",), VTAB_TASKS, (0, 1))
        ]
        own = [row for row in table_of(records).rows if row.kind == "ours"]
        assert len(own) == 2, variant
        assert [detail in label for label in row_labels(own)].count(True) == 1
        assert {row.cells[1].text for row in own} == {f"{task_mean(records[:38], 'ship', 'cifar100'):.1f}", "90.0"}


def test_rows_that_differ_in_what_some_records_do_not_state_have_names_of_their_own() -> None:
    records = [make_record("ship", "dtd", seed, 0.5 + seed / 5, origin="elsewhere") for seed in (0, 1)]
    records[1]["image_size"] = math.nan
    frame = main_table(make_results(records))
    assert sorted(frame["dtd"]) == pytest.approx([50, 70])
