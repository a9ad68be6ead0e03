"""Evaluations of finished runs, and few-shot runs, as tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import pytest

from shipbench.errors import InputError
from shipbench.report import build_report, main_table
from shipbench.report.analysis.comparisons import WORSE
from shipbench.report.analysis.robustness import shifts
from shipbench.report.analysis.shots import MEAN, few_shots
from shipbench.report.analysis.study import build_study
from shipbench.report.document import MISSING, Figure, Report, Table
from shipbench.report.drawing.chart import Points
from shipbench.report.render.latex import latex_table
from shipbench.report.wording.numbers import MINUS
from shipbench.selection import Final
from tests.report.builders import grid, make_record, make_results

Row = dict[str, Any]


def evaluated(parent: Row, accuracy: float, corruption: str = "", severity: int = 0, **columns: Any) -> Row:
    run_id = f"{parent['run_id']}-{corruption}{severity}{columns.get('task', '')}"
    extra = {"kind": "evaluated", "parent_run": parent["run_id"], "corruption": corruption, "severity": severity}
    return {**parent, **extra, "run_id": run_id, "final_test_acc": accuracy, "best_test_acc": float("nan"), **columns}


def predictions(rows: Sequence[Row], labels: Sequence[int], right: dict[str, Sequence[int]]) -> pd.DataFrame:
    """Return predictions of ``rows``: those whose id ends with a key of ``right`` are right where it has a 1."""
    frames = []
    for row in rows:
        key = max((key for key in right if row["run_id"].endswith(key)), key=len)
        guesses = [label if hit else label + 1 for label, hit in zip(labels, right[key], strict=True)]
        frames.append(pd.DataFrame({"index": range(len(labels)), "label": labels, "predicted": guesses}))
        frames[-1]["run_id"] = row["run_id"]
        frames[-1]["confidence"] = 0.5
    return pd.concat(frames, ignore_index=True)


def loader(frame: pd.DataFrame) -> Callable[..., pd.DataFrame]:
    return lambda run_ids: frame[frame["run_id"].isin(list(run_ids))]


def item(report: Report, name: str) -> Table | Figure:
    return next(each for each in report.items() if each.name == name)


def test_evaluations_are_in_no_table_of_trained_runs_and_alone_make_no_report() -> None:
    records = grid(("linear", "ship"), ("digits", "textures"), (0, 1))
    others = [evaluated(record, 0.01, "blur", 3) for record in records]
    expected = main_table(make_results(records))
    pd.testing.assert_frame_equal(main_table(make_results([*records, *others])), expected)
    with pytest.raises(InputError, match="there are no records to report"):
        build_report(make_results(others))
    with_others, without = build_report(make_results([*records, *others])), build_report(make_results(records))
    assert len(with_others.results) == len(without.results) == len(records)
    assert {each.name for each in with_others.items()} - {each.name for each in without.items()} == {
        *("robustness-demo",),
    }


def test_many_evaluations_are_floats_that_fit_two_columns() -> None:
    parents = grid(("linear", "ship"), ("digits", "textures", "clevr-count"), (0,))
    names = ("blur", "fog", "frost", "snow", "jpeg", "contrast")
    rows = [evaluated(parent, 0.2, name, 3) for parent in parents for name in names]
    table = item(build_report(make_results([*parents, *rows])), "robustness-demo")
    assert isinstance(table, Table)
    assert len(table.rows) == 36
    text = latex_table(table)
    assert "longtable}{" not in text
    assert (text.count(r"\begin{table}"), text.count(r"\caption{(continued)}")) == (3, 2)


def test_shifts_are_means_over_seeds_and_severities_with_one_test_for_all_images() -> None:
    labels = [0, 1, 2, 3, 0, 1, 2, 3]
    parent = make_record("ship", "digits", 0, 1.0)
    rows = [parent, evaluated(parent, 0.5, "blur", 1), evaluated(parent, 0.25, "blur", 4)]
    hits = {"": [1] * 8, "blur1": [1, 1, 1, 1, 0, 0, 0, 0], "blur4": [1, 1, 0, 0, 0, 0, 0, 0]}
    study = build_study(make_results(rows), None, Final())
    (shift,) = shifts(study, "demo", loader(predictions(rows, labels, hits)))
    assert (shift.clean, shift.by_severity, shift.shifted) == (100.0, {1: 50.0, 4: 25.0}, 37.5)
    assert shift.test is not None
    assert (shift.test.wins, shift.test.losses) == (0, 6)
    assert shift.test.difference == pytest.approx(-0.625)
    # Weights of the images lost: 1, 1, 2, 2, 2, 2; only two of the 2^6 signs reach the sum of 10.
    assert shift.test.p_value == pytest.approx(2 / 64)
    assert shift.adjusted == shift.test.p_value


def test_other_images_are_compared_without_a_test_and_their_own_images_unchanged_are_no_shift() -> None:
    parent = make_record("ship", "digits", 0, 0.9)
    rows = [parent, evaluated(parent, 0.9), evaluated(parent, 0.4, task="outdoors", data_fingerprint="other")]
    study = build_study(make_results(rows), None, Final())
    (shift,) = shifts(study, "demo", loader(predictions(rows, [0, 1], {"": [1, 1]})))
    assert (shift.images, shift.corruption, shift.shifted, shift.test) == ("outdoors", "", 40.0, None)
    table = item(build_report(make_results(rows)), "robustness-demo")
    assert isinstance(table, Table)
    assert [cell.text for cell in table.rows[0].cells] == ["SHIP", "outdoors", "90.0", "40.0", f"{MINUS}50.0", MISSING]
    assert any("which no test can pair" in note for note in table.notes)


def test_predictions_on_images_with_other_labels_are_not_paired() -> None:
    parent = make_record("ship", "digits", 0, 1.0)
    other = evaluated(parent, 0.5, "blur", 1)
    frame = pd.concat([predictions([parent], [0, 1], {"": [1, 1]}), predictions([other], [1, 0], {"": [1, 0]})])
    (shift,) = shifts(build_study(make_results([parent, other]), None, Final()), "demo", loader(frame))
    assert shift.test is None


def test_the_figure_starts_at_the_clean_accuracy_and_averages_over_shared_tasks() -> None:
    records = grid(("linear", "ship"), ("digits", "textures"), (0,), final_test_acc=0.8)
    rows = [*records]
    for record in records:
        # SHIP alone was evaluated on textures.
        if record["task"] == "digits" or record["method"] == "ship":
            rows += [evaluated(record, 0.8 - 0.1 * severity, "blur", severity) for severity in (1, 2)]
    figure = item(build_report(make_results(rows)), "robustness-demo")
    figures = [each for each in build_report(make_results(rows)).figures() if each.name == figure.name]
    (panel,) = figures[0].draw().panels
    points = [mark for mark in panel.marks if isinstance(mark, Points)]
    assert [list(mark.xs) for mark in points] == [[0, 1, 2]] * 2
    assert [mark.ys for mark in points] == [pytest.approx([80, 70, 60])] * 2


def test_seeds_are_averaged_over_the_severities_that_they_share_and_count_as_trainings() -> None:
    first, second = (make_record("ship", "digits", seed, accuracy) for seed, accuracy in ((0, 1.0), (1, 0.75)))
    rows = [first, second, evaluated(first, 0.5, "blur", 1), evaluated(first, 0.1, "blur", 4)]
    rows += [evaluated(second, 0.25, "blur", 1), evaluated(second, 0.1, "blur", 2)]
    rows.append(evaluated(first, float("nan"), "jpeg", 1, status="failed"))
    hits = {
        first["run_id"]: [1, 1, 1, 1],
        second["run_id"]: [1, 1, 1, 0],
        f"{first['run_id']}-blur1": [0, 1, 1, 0],
        f"{second['run_id']}-blur1": [0, 1, 0, 0],
        **{key: [0, 0, 0, 0] for key in ("blur2", "blur4", "jpeg1")},
    }
    frame = predictions(rows, [0, 1, 2, 3], hits).sample(frac=1, random_state=0)
    (shift,) = shifts(build_study(make_results(rows), None, Final()), "demo", loader(frame))
    assert (shift.seeds, shift.clean, shift.by_severity) == ((0, 1), 87.5, {1: 37.5})
    assert shift.test is not None
    assert (shift.test.wins, shift.test.losses, shift.test.difference) == (0, 3, pytest.approx(-0.5))


def test_seeds_without_a_severity_in_common_are_not_averaged() -> None:
    parents = [make_record("ship", "digits", seed, accuracy) for seed, accuracy in ((0, 0.9), (1, 0.7))]
    others = [evaluated(parent, 0.5, "blur", 1 + seed) for seed, parent in enumerate(parents)]
    (shift,) = shifts(build_study(make_results([*parents, *others]), None, Final()), "demo", None)
    assert (shift.seeds, shift.clean, shift.by_severity) == ((0,), 90.0, {1: 50.0})


def test_a_mark_needs_a_p_value_that_holds_for_all_rows() -> None:
    def table_of(images: int) -> Table:
        parent = make_record("ship", "digits", 0, 1.0)
        rows = [parent, *(evaluated(parent, 0.0, corruption, 1) for corruption in ("blur", "jpeg"))]
        hits = {"": [1] * images, "blur1": [0] * images, "jpeg1": [0] * images}
        frame = predictions(rows, list(range(images)), hits)
        table = item(build_report(make_results(rows), predictions=loader(frame)), "robustness-demo")
        assert isinstance(table, Table)
        return table

    # Alone, p is 2 / 2^6 = 0.03 for six images; Holm doubles the smaller of two.
    assert [[cell.sign for cell in row.cells][-2:] for row in table_of(6).rows] == [["", ""]] * 2
    for row in table_of(8).rows:
        assert row.cells[-2].sign == WORSE
        assert row.cells[-2].extras == (("images won", 0), ("images lost", 8))


def test_a_task_scored_by_class_keeps_its_metric() -> None:
    metric = {"headline_metric": "mean-per-class", "num_classes": 4}
    parent = make_record("ship", "digits", 0, 0.9, final_test_mean_class_acc=0.8, **metric)
    rows = [parent, evaluated(parent, 0.7, "blur", 1, final_test_mean_class_acc=0.6)]
    (shift,) = shifts(build_study(make_results(rows), None, Final()), "demo", None)
    assert (shift.clean, shift.shifted) == (80.0, 60.0)


def test_evaluations_of_weights_before_a_repetition_are_left_out() -> None:
    parent = make_record("ship", "digits", 0, 0.9, created="2025-03-02T12:00:00+00:00")
    before, after = ({"created": f"2025-03-02T{hour}:00:00+00:00"} for hour in ("11", "12"))
    rows = [parent, evaluated(parent, 0.1, "blur", 1, **before), evaluated(parent, 0.2, "jpeg", 1, created="")]
    rows.append(evaluated(parent, 0.7, "blur", 2, **after))
    measured = shifts(build_study(make_results(rows), None, Final()), "demo", None)
    assert {shift.corruption: dict(shift.by_severity) for shift in measured} == {"blur": {2: 70}, "jpeg": {1: 20}}


def test_the_later_of_two_evaluations_counts_and_a_severity_may_be_absent() -> None:
    parent = make_record("ship", "digits", 0, 0.9)
    rows = []
    for name, accuracy, hour in (("a", 0.7, 14), ("b", 0.1, 13)):
        row = evaluated(parent, accuracy, "blur", 1, created=f"2025-03-02T{hour}:00:00+00:00")
        rows.append({**row, "run_id": name})
    rows.append(evaluated(parent, 0.4, severity=float("nan"), task="outdoors", data_fingerprint="other"))
    measured = shifts(build_study(make_results([parent, *rows]), None, Final()), "demo", None)
    assert [(shift.images, dict(shift.by_severity)) for shift in measured] == [("", {1: 70}), ("outdoors", {0: 40})]


def test_what_lacks_its_accuracy_is_left_out() -> None:
    missing = float("nan")
    parents = [make_record("ship", "digits", seed, accuracy) for seed, accuracy in ((0, 0.9), (1, missing))]
    rows = [evaluated(parent, 0.7, "blur", 1) for parent in parents]
    rows += [evaluated(parents[0], missing, "blur", 2), evaluated(parents[0], missing, "jpeg", 1)]
    (shift,) = shifts(build_study(make_results([*parents, *rows]), None, Final()), "demo", None)
    assert (shift.corruption, shift.seeds, shift.clean, shift.by_severity) == ("blur", (0,), 90, {1: 70})


def test_a_task_scored_by_class_is_tested_by_class() -> None:
    parent = make_record(
        "ship", "digits", headline_metric="mean-per-class", final_test_mean_class_acc=0.625, num_classes=2
    )
    rows = [parent, evaluated(parent, 0.8, "blur", 1, final_test_mean_class_acc=0.5)]
    hits = {"": [0] * 6 + [1] * 4, "blur1": [1] * 8 + [0] * 2}
    frame = predictions(rows, [0] * 8 + [1] * 2, hits)
    (shift,) = shifts(build_study(make_results(rows), None, Final()), "demo", loader(frame))
    assert (shift.clean, shift.shifted) == (62.5, 50.0)
    assert shift.test is not None
    assert (shift.test.wins, shift.test.losses, shift.test.difference) == (6, 2, pytest.approx(-0.125))
    table = item(build_report(make_results(rows), predictions=loader(frame)), "robustness-demo")
    assert isinstance(table, Table)
    assert table.caption.details.startswith("Sign-flip tests of the means of classes on the test images, with Holm's")
    assert "p is an upper bound instead of exact" in table.caption.details
    # 6/8 - 2/2 is -1/4: as far from zero are 44 of 64 sums of the first class if the second one cancels, else all.
    assert shift.test.p_value == pytest.approx((44 / 64 + 1) / 2)


def test_two_sources_of_one_name_are_two_rows() -> None:
    parent = make_record("ship", "digits", 0, 0.9)
    rows = [parent]
    for accuracy, fingerprint in ((0.4, "a" * 64), (0.6, "b" * 64)):
        other = evaluated(parent, accuracy, task="outdoors", data_fingerprint=fingerprint)
        rows.append({**other, "run_id": f"on-{fingerprint}"})
    measured = shifts(build_study(make_results(rows), None, Final()), "demo", None)
    assert [(shift.images, shift.shifted) for shift in measured] == [
        ("outdoors (aaaaaa)", 40),
        ("outdoors (bbbbbb)", 60),
    ]


def test_a_panel_holds_corrupted_test_images_of_shared_tasks_alone() -> None:
    records = grid(("linear", "ship"), ("digits", "textures"), (0,), final_test_acc=0.8)
    rows = [*records]
    for record in records:
        if record["task"] == "digits":
            rows.append(evaluated(record, 0.6, "blur", 1))
            rows.append(evaluated(record, 0.2, "jpeg", 1, task="outdoors", data_fingerprint="other"))
        elif record["method"] == "ship":
            rows.append(evaluated(record, 0.1, "blur", 1))
        if (record["task"], record["method"]) in (("digits", "linear"), ("textures", "ship")):
            rows.append(evaluated(record, 0.5, "contrast", 1))
    figure = next(each for each in build_report(make_results(rows)).figures() if each.name == "robustness-demo")
    (panel,) = figure.draw().panels
    points = [mark for mark in panel.marks if isinstance(mark, Points)]
    assert [mark.ys for mark in points] == [pytest.approx([80, 60])] * 2


def test_three_corruptions_have_two_panels_to_a_row_on_a_narrow_screen() -> None:
    rows = grid(("linear", "ship"), ("digits",), (0,))
    rows += [evaluated(row, 0.2, name, 1) for row in list(rows) for name in ("blur", "jpeg", "contrast")]
    report = build_report(make_results(rows))
    figure = next(each for each in report.figures() if each.name == "robustness-demo")
    assert figure.narrow is not None
    chart = figure.narrow()
    assert (chart.columns, chart.wide) == (2, False)
    assert [bool(panel.y.ticks[0][1]) for panel in chart.panels] == [True, False, True]


def test_shots_are_columns_in_ascending_order_with_all_images_at_the_end() -> None:
    rows = [
        make_record(method, task, seed, accuracy / 100 + seed / 100, shots=shots)
        for method in ("linear", "ship")
        for shots, accuracy in ((16, 60), (0, 80), (2, 40))
        for task in ("digits", "textures")
        for seed in (0, 1)
    ]
    # A task that only one number of shots has is left out of every mean.
    rows.append(make_record("ship", "clevr-count", 0, 0.01, shots=2))
    few = few_shots(build_study(make_results(rows), None, Final()), "demo")
    assert few is not None
    assert (few.shots, few.tasks) == ((2, 16, 0), ("digits", "textures"))
    assert [family.name for family in few.families] == ["Linear probe", "SHIP"]
    scores = few.families[1].scores[MEAN]
    assert [round(score.mean, 6) for score in scores.values()] == [40.5, 60.5, 80.5]
    assert scores[2].deviation == pytest.approx(0.5**0.5)
    report = build_report(make_results(rows))
    table = item(report, "shots-demo")
    assert isinstance(table, Table)
    assert [column.title for column in table.columns] == ["Method", "2", "16", "all"]
    figure = next(each for each in report.figures() if each.name == "shots-demo")
    assert [text for _, text in figure.draw().panels[0].x.ticks] == ["2", "16", "all"]
    assert figure.narrow is not None
    assert (figure.narrow().columns, figure.narrow().wide) == (2, False)


def test_a_number_of_shots_without_a_finished_run_hides_no_other() -> None:
    lost: Row = {"status": "failed", "final_test_acc": float("nan"), "best_test_acc": float("nan")}
    rows = [
        make_record(
            method, "digits", accuracy=accuracy, shots=shots, **(lost if (method, shots) == ("ship", 2) else {})
        )
        for method in ("linear", "ship")
        for shots, accuracy in ((2, 0.4), (4, 0.5), (16, 0.6))
    ]
    table = item(build_report(make_results(rows)), "shots-demo")
    assert isinstance(table, Table)
    assert [[cell.text for cell in row.cells] for row in table.rows] == [
        ["Linear probe", "40.0", "50.0", "60.0"],
        ["SHIP", MISSING, "50.0", "60.0"],
    ]
    figure = next(each for each in build_report(make_results(rows)).figures() if each.name == "shots-demo")
    points = [mark for mark in figure.draw().panels[0].marks if isinstance(mark, Points)]
    assert [list(mark.ys) for mark in points] == [pytest.approx([40, 50, 60]), pytest.approx([50, 60])]


def test_a_number_of_shots_with_fewer_seeds_is_marked_and_the_mark_explained() -> None:
    rows = [make_record("ship", "digits", seed, shots=shots) for shots in (2, 16) for seed in (0, 1)]
    for kept, signs in ((rows, ["", ""]), (rows[:-1], ["", "†"])):
        table = item(build_report(make_results(kept)), "shots-demo")
        assert isinstance(table, Table)
        assert [cell.sign for cell in table.rows[0].cells[1:]] == signs
        # A number of shots may have been planned with fewer seeds, so the note names no cause.
        assert list(table.notes) == ["† fewer seeds than the row has over all numbers of shots."] * signs.count("†")


def test_runs_of_one_number_of_shots_have_no_table_of_shots() -> None:
    study = build_study(make_results(grid(("linear", "ship"), ("digits",), (0, 1), shots=4)), None, Final())
    assert few_shots(study, "demo") is None
