"""The protocol box, and what a report says of collapsed seeds, the oracle gap and ranks."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from shipbench.report import ReportOptions, build_report
from shipbench.report.analysis.study import build_study
from shipbench.report.render.markdown import markdown_report
from shipbench.report.tables.protocol import protocol_box
from shipbench.selection import get_selection
from tests.report.builders import DEMO_TASKS, cell, grid, make_record, make_results, study_of, table, table_named


def test_one_of_two_seeds_collapses_and_is_shown_not_dropped() -> None:
    records = grid(("vpt-deep", "ship"), DEMO_TASKS, (0, 1), chance_acc=0.2)
    fallen = next(r for r in records if (r["method"], r["task"], r["seed"]) == ("ship", "textures", 1))
    fallen |= {"final_test_acc": 0.15, "best_test_acc": 0.9}
    kept = next(r for r in records if (r["method"], r["task"], r["seed"]) == ("ship", "textures", 0))
    report = build_report(make_results(records))
    main = table(report, "main-demo")
    shown = cell(main, "SHIP", "textures")
    assert shown.value == pytest.approx(50 * (kept["final_test_acc"] + 0.15))
    assert shown.sign == "‡"
    assert dict(shown.extras)["seeds"] == 2
    assert any(note.startswith("‡ collapsed") for note in main.notes)
    assert cell(main, "VPT-deep", "textures").sign == ""
    rows = [[c.text for c in row.cells] for row in table(report, "missing").rows]
    why = "lowest accuracy 15.0 %, majority-class accuracy 20.0 %; kept in the means"
    assert [row for row in rows if row[0] == "collapsed"] == [["collapsed", "SHIP", "textures", "1", why]]


def test_the_protocol_box_names_data_and_weights() -> None:
    records = grid(("ship",), ("dtd", "svhn"), (0, 1, 2), n_train=1000, n_test=1880)
    report = build_report(make_results(records))
    protocol = dict(report.protocol)
    assert "6 runs, each on 1,000 training images" in protocol["Trained"]
    assert "seeds 0–2" in protocol["Trained"]  # noqa: RUF001
    assert "On 1,880 test images" in protocol["Tested"]
    assert "The rule final counts" in protocol["Tested"]
    assert "DTD (png, fingerprint data-of-dtd)" in protocol["Data, VTAB-1k"]
    assert f"sha256 {'a1b2c3d4' * 8}" in protocol["Weights"]
    page = markdown_report(report, None)
    assert page.index("SHIP reaches") < page.index("**Protocol**") < page.index("## VTAB-1k: results")


def test_the_protocol_box_counts_the_runs_that_were_tested_before_their_end() -> None:
    records = grid(("ship",), ("dtd", "svhn"), (0,))
    rows = [(records[0], 0, "test"), (records[0], 1, "test"), (records[1], 1, "test"), (records[1], 0, "train")]
    history = [{"run_id": r["run_id"], "epoch": epoch, "split": split, "accuracy": 0.5} for r, epoch, split in rows]
    study = build_study(make_results(records), pd.DataFrame(history), get_selection("final"))
    assert "Also tested during training: 1 run;" in dict(protocol_box(study))["Tested"]
    assert "Also" not in dict(protocol_box(study_of(records)))["Tested"]


def test_the_protocol_box_distinguishes_ablations_from_settings_changed_by_hand() -> None:
    full = grid(("ship",), ("dtd", "svhn"), (0,))
    ablated = [
        {**r, "run_id": r["run_id"] + "-a", "switches": "no-hierarchy", "overrides": "threshold=1"} for r in full
    ]
    longer = {**full[0], "run_id": "longer", "cfg.prompt_length": 50, "overrides": "prompt_length=50"}
    settings = dict(protocol_box(study_of([*full, *ablated, longer])))["Settings"]
    assert settings == (
        "5 runs with settings fixed beforehand (default recipe, 2 runs with parts of the method switched off, "
        "1 run with settings changed by hand)."
    )


def test_the_page_shows_the_result_first_and_what_holds_for_all_of_it_once(written: Path) -> None:
    (page,) = (file.read_text(encoding="utf-8") for file in written.glob("*.html"))
    places = ['class="standing"', 'class="sentence"', "<table", "<svg", 'aria-label="Protocol"', 'class="facts"']
    assert [page.index(place) for place in places] == sorted(page.index(place) for place in places)
    assert page.count("Selection rule: final (after the last epoch)") == 1


def test_nothing_counted_has_no_protocol() -> None:
    report = build_report(make_results([make_record()]), None, ReportOptions(select="validation"))
    assert report.protocol == ()


def test_the_oracle_gap_in_numbers() -> None:
    runs = (("dtd", 0, 0.5, 0.6), ("dtd", 1, 0.7, 0.8), ("svhn", 0, 0.8, 0.8))
    records = [make_record("ship", task, seed, last, best_test_acc=best) for task, seed, last, best in runs]
    gaps = table_named("oracle-gaps-vtab-1k", records, "results")
    assert [cell(gaps, "SHIP", key).text for key in ("final", "oracle", "gap", "largest_gap", "tasks")] == [
        "70.0",
        "75.0",
        "+5.0",
        "+10.0",
        "2",
    ]


def test_ranks_are_listed_from_the_best_and_tied_first_places_are_no_wins() -> None:
    scores = {"linear": (0.1, 0.4, 0.2, 0.7), "vpt-deep": (0.8, 0.5, 0.8, 0.5), "ship": (0.9, 0.5, 0.7, 0.8)}
    records = [make_record(m, t, 0, s) for m, row in scores.items() for t, s in zip(DEMO_TASKS, row, strict=False)]
    rows = table_named("ranks-demo", records, "results").rows
    assert [[c.text for c in row.cells] for row in rows] == [
        ["SHIP", "1.38", "2"],
        ["VPT-deep", "1.88", "1"],
        ["Linear probe", "2.75", "0"],
    ]
