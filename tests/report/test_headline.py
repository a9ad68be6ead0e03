"""The result in one sentence: the best method, its lead, and whether the lead is beyond chance."""

from __future__ import annotations

from typing import Any

import pytest

from shipbench.errors import InputError
from shipbench.report import ReportOptions, build_report
from shipbench.report.document import MISSING, Overview
from shipbench.report.wording.names import task_name
from shipbench.report.wording.numbers import MINUS
from shipbench.tasks.catalogue import VTAB
from tests.report.builders import (
    DEMO_TASKS,
    VTAB_TASKS,
    ablation_records,
    grid,
    make_predictions,
    make_record,
    make_results,
    study_records,
    sweep_records,
    table_named,
)

ALL_IMPORTED = ReportOptions(imported="all")


def overview_of(records: list[dict[str, Any]]) -> Overview:
    (overview,) = build_report(make_results(records)).overviews
    return overview


def sentences(records: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    return {(result.select, result.mean): result.sentence for result in overview_of(records).results}


def test_the_best_method_leads_the_baseline_beyond_chance() -> None:
    by_choice = sentences(grid(("linear", "vpt-deep", "ship"), VTAB_TASKS, (0, 1)))
    assert by_choice["final", "tasks"] == (
        "SHIP is best on VTAB-1k (mean of tasks, 19 tasks): 54.5 %, 7.2 points above VPT-deep, beyond chance across "
        "tasks (Wilcoxon, p < 0.001)."
    )
    assert "(mean of groups, 19 tasks)" in by_choice["final", "groups"]
    assert by_choice["oracle", "tasks"].startswith("SHIP is best on VTAB-1k (mean of tasks, 19 tasks): 55.5 %")


def test_the_sentence_and_the_table_print_the_same_p_value() -> None:
    records = [make_record(m, t, accuracy=a) for m, a in (("vpt-deep", 0.5), ("ship", 0.6)) for t in VTAB_TASKS[:11]]
    result = overview_of(records).results[0]
    assert result.sentence.endswith("(Wilcoxon, p < 0.001).")
    assert result.table.rows[0].cells[3].text == "<0.001"


def test_a_best_baseline_is_compared_with_the_second() -> None:
    records = [{**r, "final_test_acc": 0.9 - r["final_test_acc"]} for r in grid(("vpt-deep", "ship"), VTAB_TASKS, (0,))]
    assert "above SHIP, beyond chance" in sentences(records)["final", "tasks"]


def test_a_lead_that_most_tasks_contradict_is_not_called_beyond_chance() -> None:
    records = [make_record("vpt-deep", task, 0, 0.5) for task in VTAB_TASKS]
    records += [make_record("ship", task, 0, 0.49 - 0.001 * i if i else 0.9) for i, task in enumerate(VTAB_TASKS)]
    result = overview_of(records).results[-1]
    assert sentences(records)["final", "tasks"].endswith(
        "0.3 points above VPT-deep, but worse beyond chance across tasks (Wilcoxon, p = 0.001)."
    )
    against = "Wilcoxon's test of SHIP is beyond chance against the direction of the difference."
    assert result.table.caption.text.endswith(against)
    assert against in table_named("significance-vtab-1k", records, "results").notes


def test_a_lead_that_chance_explains_is_called_so() -> None:
    records = [make_record("vpt-deep", task, 0, 0.5) for task in DEMO_TASKS]
    scores = (0.49, 0.52, 0.53, 0.54, 0.55, 0.56)
    records += [make_record("ship", task, 0, score) for task, score in zip(DEMO_TASKS, scores, strict=True)]
    assert sentences(records)["final", "tasks"].endswith(
        "3.2 points above VPT-deep, not beyond chance across tasks (Wilcoxon, p = 0.062)."
    )
    records = [make_record("vpt-deep", "digits", 0, 0.5), make_record("ship", "digits", 0, 0.505)]
    frame = make_predictions(records)
    load = lambda run_ids: frame[frame["run_id"].isin(list(run_ids))]  # noqa: E731
    (overview,) = build_report(make_results(records), predictions=load).overviews
    assert overview.results[0].sentence.endswith("0.5 points above VPT-deep, not beyond chance.")


def test_few_tasks_beyond_chance_are_counted_in_both_directions() -> None:
    records = [make_record("vpt-deep", task, 0, 0.5) for task in DEMO_TASKS[:4]]
    scores = (0.9, 0.4, 0.5)
    records += [make_record("ship", task, 0, score) for task, score in zip(DEMO_TASKS, (*scores, 0.6), strict=False)]
    frame = make_predictions([r for r in records if r["task"] != DEMO_TASKS[3]], images=1000)
    load = lambda run_ids: frame[frame["run_id"].isin(list(run_ids))]  # noqa: E731
    (overview,) = build_report(make_results(records), predictions=load).overviews
    sentence = next(r.sentence for r in overview.results if (r.select, r.mean) == ("final", "tasks"))
    assert sentence.endswith("10.0 points above VPT-deep, beyond chance on 1 of 3 tested tasks and worse on 1.")


def test_a_lead_on_one_task_that_common_seeds_contradict_is_named() -> None:
    records = [make_record("vpt-deep", "digits", 0, 0.5)]
    records += [make_record("ship", "digits", seed, score) for seed, score in enumerate((0.3, 0.9))]
    frame = make_predictions(records, images=1000)
    load = lambda run_ids: frame[frame["run_id"].isin(list(run_ids))]  # noqa: E731
    (overview,) = build_report(make_results(records), predictions=load).overviews
    sentence = next(r.sentence for r in overview.results if r.select == "final")
    assert sentence.endswith("10.0 points above VPT-deep, but worse beyond chance.")


def test_seeds_of_a_method_without_a_complete_seed_are_counted() -> None:
    records = [make_record("ship", task, seed) for task, seed in (("digits", 0), ("textures", 1))]
    assert sentences(records)["final", "tasks"].endswith("2 seeds.")


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        (grid(("ship",), VTAB_TASKS, (0, 1)), "SHIP reaches 40.1 % on VTAB-1k (mean of tasks, 19 tasks), 2 seeds."),
        (
            grid(("vpt-deep", "ship"), DEMO_TASKS[:1], (0,)),
            "SHIP is best on digits (Demo suite): 37.0 %, 7.0 points above VPT-deep, over too few tasks for a test "
            "across tasks (1).",
        ),
        (
            [make_record("vpt-deep", "dtd", 0, 0.5), make_record("ship", "dtd", 0, 0.5)],
            "VPT-deep, SHIP share the highest accuracy on DTD (VTAB-1k): 50.0 %.",
        ),
    ],
)
def test_one_method_one_task_and_a_tie(records: list[dict[str, Any]], expected: str) -> None:
    last = [s for (rule, _), s in sentences(records).items() if rule == "final"][-1]
    assert last == expected


def test_methods_without_a_common_task_are_not_compared() -> None:
    apart = [*grid(("vpt-deep",), VTAB_TASKS[:3], (0,)), *grid(("ship",), VTAB_TASKS[3:5], (0, 1))]
    assert overview_of(apart).results[0].sentence == (
        "VPT-deep reaches 31.1 % on 3 tasks of VTAB-1k, 1 seed; not compared with SHIP, which lacks results on these "
        "tasks."
    )
    common = overview_of([*apart, make_record("ship", VTAB_TASKS[0], accuracy=0.6)]).results[0]
    assert common.sentence.startswith("SHIP is best on CIFAR-100 (VTAB-1k): ")


def test_results_without_a_seed_are_not_said_to_have_one() -> None:
    imported = [
        make_record(method, task, -1, accuracy, kind="imported", origin="csv", epoch_rule="final")
        for method, accuracy in (("linear", 0.4), ("vpt-deep", 0.5), ("ship", 0.6))
        for task in DEMO_TASKS
    ]
    report = build_report(make_results(imported))
    texts = [item.caption.text for item in report.items()]
    assert "Test accuracy in percent, seeds not stated. Best in bold, second best underlined, as printed." in texts
    assert not any("one seed each" in text for text in texts)
    assert overview_of(imported[: len(DEMO_TASKS)]).results[-1].sentence.endswith("6 tasks), seed not stated.")
    mixed = build_report(make_results([*imported, *grid(("full",), DEMO_TASKS, (0,))]), options=ALL_IMPORTED)
    assert any(", one seed each where it is stated." in item.caption.text for item in mixed.items())


def test_a_report_without_an_accuracy_says_why_at_the_top() -> None:
    report = build_report(make_results(grid(("ship",), DEMO_TASKS, (0,))), options=ReportOptions(select="validation"))
    assert report.warnings[0] == (
        "No results: of 6 finished runs, none has an accuracy under the rule validation. See the table of missing and "
        "failed runs."
    )
    lost = {"status": "failed", "error": "full disk", "final_test_acc": float("nan")}
    failed = [*grid(("ship",), DEMO_TASKS, (0,), **lost)]
    assert build_report(make_results(failed)).warnings[0].startswith("No results: no run has finished.")
    some = build_report(make_results([*failed, *grid(("linear",), DEMO_TASKS, (0, 1))]))
    assert some.lead.startswith("12 finished and 6 failed runs of 2 methods on Demo suite.")


def test_a_report_of_left_out_records_is_refused() -> None:
    imported = [make_record("ship", "dtd", kind="imported", origin="csv", epoch_rule="final")]
    with pytest.raises(InputError, match="every record is imported, and --imported none leaves those out"):
        build_report(make_results(imported), options=ReportOptions(imported="none"))


def test_methods_without_the_whole_suite_are_named_and_not_ranked() -> None:
    records = [*grid(("vpt-deep", "ship"), VTAB_TASKS, (0,)), *grid(("full",), VTAB_TASKS[:3], (0,))]
    result = overview_of(records).results[0]
    assert [row.cells[0].text for row in result.table.rows] == ["SHIP", "VPT-deep"]
    assert "Left out for missing tasks: Full fine-tuning." in result.table.caption.details


def test_the_difference_beside_a_mean_is_that_of_this_mean() -> None:
    gains = {"Natural": 0.01, "Specialized": 0.02, "Structured": 0.06}
    records = [make_record("vpt-deep", task.name, 0, 0.5) for task in VTAB.tasks]
    records += [make_record("ship", task.name, 0, 0.5 + gains[task.group]) for task in VTAB.tasks]
    shown = {
        result.mean: [[cell.text for cell in row.cells[:3]] for row in result.table.rows]
        for result in overview_of(records).results
        if result.select == "final"
    }
    assert shown == {
        "groups": [["SHIP", "53.0", "+3.0"], ["VPT-deep", "50.0", "baseline"]],
        "tasks": [["SHIP", "53.3", "+3.3"], ["VPT-deep", "50.0", "baseline"]],
    }


def test_arms_and_tasks_that_a_mean_leaves_out_are_both_named() -> None:
    records = [*grid(("vpt-deep",), VTAB_TASKS[:4], (0,)), *grid(("ship",), VTAB_TASKS[:3], (0,))]
    others = [*records, *grid(("lora",), VTAB_TASKS[5:6], (0,))]
    left = f" Tasks left out because some methods lack them: {task_name(VTAB_TASKS[3])}."
    for rows, expected in ((records, left), (others, f" Left out for missing tasks: LoRA.{left}")):
        details = overview_of(rows).results[0].table.caption.details
        assert details == f"Trainable parameters with the head.{expected}"


def test_parameters_are_those_of_the_tasks_of_the_mean() -> None:
    records = grid(("linear", "vpt-deep", "ship"), VTAB_TASKS[:3], (0,))
    records.append(make_record("ship", VTAB_TASKS[3], 0, 0.5, trainable_params=900_000))
    result = overview_of(records).results[0]
    assert {row.cells[0].value: row.cells[-1].value for row in result.table.rows}["SHIP"] == 300_000
    assert result.figure is not None
    tips = [tip for mark in result.figure.draw().panels[0].marks for tip in getattr(mark, "tips", ())]
    assert any(tip.startswith("SHIP: ") and "0.30 million" in tip for tip in tips)


def test_a_mean_over_fewer_seeds_is_marked_and_the_mark_explained() -> None:
    table = overview_of(grid(("vpt-deep", "ship"), VTAB_TASKS, (0, 1))[:-1]).results[0].table
    assert {row.cells[0].value: row.cells[1].sign for row in table.rows} == {"SHIP": "†", "VPT-deep": ""}
    assert [note.split(" than")[0] for note in table.notes] == ["† fewer seeds"]


def test_a_part_of_a_suite_has_a_mean_of_these_tasks() -> None:
    result = overview_of(grid(("vpt-deep", "ship"), VTAB_TASKS[:5], (0,))).results[0]
    assert result.table.columns[1].title == "mean of these 5 tasks"
    assert "on 5 tasks of VTAB-1k" in result.sentence
    assert "p" not in [column.title for column in result.table.columns]
    assert result.table.caption.text.startswith("Mean of these 5 tasks in percent, seed 0.")


def test_differences_over_other_tasks_than_the_means_are_said_to_be() -> None:
    lacking = {("linear", VTAB_TASKS[1]), ("ship", VTAB_TASKS[2])}
    methods = ("linear", "vpt-deep", "ship")
    records = [r for r in grid(methods, VTAB_TASKS[:5], (0,)) if (r["method"], r["task"]) not in lacking]
    result = overview_of(records).results[0]
    assert result.table.caption.text.endswith("Differences are over all tasks shared with VPT-deep.")
    assert result.figure is not None
    assert "(mean of these 3 tasks)" in result.figure.caption.text
    even = overview_of(grid(methods, VTAB_TASKS[:5], (0,))).results[0]
    assert "Differences" not in even.table.caption.text


def test_differences_over_other_seeds_than_the_means_are_said_to_be() -> None:
    records = grid(("vpt-deep", "ship"), VTAB_TASKS, (0, 1))
    records = [r for r in records if (r["method"], r["seed"]) != ("ship", 1)]
    captions = {result.mean: result.table.caption.text for result in overview_of(records).results}
    assert "Differences are over the seeds shared with VPT-deep; p is that of" in captions["tasks"]
    assert "test across tasks, over the seeds shared with VPT-deep, with Holm" in captions["groups"]
    few = [r for r in records if r["task"] in VTAB_TASKS[:4] and (r["method"], r["task"]) != ("ship", VTAB_TASKS[3])]
    few += grid(("linear",), VTAB_TASKS[:3], (0,))
    text = overview_of(few).results[0].table.caption.text
    assert text.endswith("Differences are over the seeds shared with VPT-deep.")


@pytest.mark.parametrize("tasks", [DEMO_TASKS[:1], VTAB_TASKS[:1]])
def test_a_single_task_is_named_in_place_of_a_mean(tasks: tuple[str, ...]) -> None:
    result = overview_of(grid(("linear", "vpt-deep", "ship"), tasks, (0, 1))).results[0]
    name = f"ccuracy on {task_name(tasks[0])}"
    assert result.table.columns[1].title == f"a{name}"
    assert result.table.caption.text.startswith(f"A{name} in percent with the standard deviation over seeds 0, 1.")
    assert result.figure is not None
    assert result.figure.caption.text.startswith(f"A{name} against trainable parameters, with the standard deviation")


@pytest.mark.parametrize(("seeds", "several"), [((0,), False), ((0, 1), True)])
def test_captions_speak_of_a_deviation_where_there_is_one(seeds: tuple[int, ...], several: bool) -> None:
    records = [
        *study_records(DEMO_TASKS, seeds),
        *ablation_records(DEMO_TASKS, seeds),
        *sweep_records(DEMO_TASKS, seeds, "lr", (1e-3, 1e-2), 1e-3),
    ]
    report = build_report(make_results(records))
    for name in ("main", "pareto", "training-cost", "ablation", "sweeps", "settings-varied"):
        captions = [item.caption.text for item in report.items() if item.name.startswith(f"{name}-")]
        assert captions, name
        assert any("deviation" in text for text in captions) is several
    for result in report.overviews[0].results:
        assert result.figure is not None
        for caption in (result.table.caption, result.figure.caption):
            assert ("deviation" in caption.text) is several


def test_a_method_without_a_run_in_common_with_the_baseline_is_not_called_the_baseline() -> None:
    records = [*grid(("linear", "vpt-deep"), VTAB_TASKS, (0,)), *grid(("ship",), VTAB_TASKS, (1,))]
    table = overview_of(records).results[-1].table
    place = [column.key for column in table.columns].index("difference")
    differences = {row.cells[0].value: row.cells[place].text for row in table.rows}
    assert differences == {"Linear probe": f"{MINUS}7.0", "VPT-deep": "baseline", "SHIP": MISSING}


def test_methods_with_one_seed_each_are_said_to_have_it() -> None:
    records = [*grid(("vpt-deep",), VTAB_TASKS, (0,)), *grid(("ship",), VTAB_TASKS, (1,))]
    result = overview_of(records).results[-1]
    assert result.table.caption.text.startswith("Mean of tasks in percent, one seed each.")
    assert result.figure is not None
    assert result.figure.caption.text == "Accuracy of each method, one seed each."
