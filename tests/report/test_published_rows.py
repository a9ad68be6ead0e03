"""Published rows below the main table, and the differences of our runs to them."""

from __future__ import annotations

import statistics
from itertools import pairwise
from typing import Any

import pytest

from shipbench.published import published_rows
from shipbench.report.document import Table
from shipbench.report.wording.names import method_name
from tests.report.builders import METHODS, VTAB_TASKS, Records, grid, table_named


def table_of(records: Records, **options: Any) -> Table:
    return table_named("main-vtab-1k", records, "results", **options)


def texts(table: Table, label: str) -> dict[str, str]:
    row = next(row for row in table.rows if row.cells[0].text == label)
    return {column.key: cell.text for column, cell in zip(table.columns, row.cells, strict=True)}


def test_published_rows_follow_a_rule_with_the_difference_to_ours() -> None:
    records = grid(("vpt-deep", "linear"), VTAB_TASKS, (0, 1))
    table = table_of(records)
    rows = list(table.rows)
    first = next(i for i, row in enumerate(rows) if row.kind == "published")
    assert [row.rule for row in rows] == [i == first for i in range(len(rows))]
    assert {row.kind for row in rows[:first]} == {"ours"}
    printed = next(row for row in published_rows() if row.method == "VPT-Deep")
    at = next(i for i, row in enumerate(rows) if row.cells[0].text.startswith("VPT-Deep, published"))
    index = [column.key for column in table.columns].index("svhn")
    assert rows[at].cells[index].text == f"{printed.accuracy_percent['svhn']:.1f}"
    svhn = [r["final_test_acc"] for r in records if (r["method"], r["task"]) == ("vpt-deep", "svhn")]
    difference = 100 * statistics.fmean(svhn) - printed.accuracy_percent["svhn"]
    assert rows[at + 1].kind == "difference"
    assert rows[at + 1].cells[index].value == pytest.approx(difference)
    assert any("Visual Prompt Tuning" in note for note in table.notes)


@pytest.mark.parametrize(
    "columns",
    [
        {"backbone": "vit_small_patch16_224"},
        {"checkpoint": "random"},
        {"checkpoint": "mae_vit_b.pth", "backbone_sha256": "c" * 64},
        {"shots": 4},
        {"image_size": 384},
    ],
)
def test_other_weights_images_or_shots_have_no_difference_to_published_rows(columns: dict[str, Any]) -> None:
    same, other = grid(("vpt-deep",), VTAB_TASKS, (0,)), grid(("linear",), VTAB_TASKS, (0,), **columns)
    table = table_of([*same, *other])
    kinds = [row.kind for row in table.rows]
    assert kinds.count("published") > kinds.count("difference") > 0
    after = {row.cells[0].text: below.kind for row, below in pairwise(table.rows) if row.kind == "published"}
    assert {kind for label, kind in after.items() if label.startswith("VPT-Deep")} == {"difference"}
    assert "difference" not in {kind for label, kind in after.items() if label.startswith("Linear")}
    (note,) = (note for note in table.notes if note.startswith("No difference to the published numbers for Linear"))
    assert "vit_base_patch16_224.orig_in21k" in note


def test_a_file_with_the_weights_of_the_name_has_a_difference_to_published_rows() -> None:
    by_name = grid(("vpt-deep",), VTAB_TASKS, (0,))
    from_file = grid(("linear",), VTAB_TASKS, (0,), checkpoint="ViT-B_16.npz")
    for records, rows in ((from_file, 0), ([*by_name, *from_file], 1)):
        labels = [row.cells[0].value for row in table_of(records).rows if row.kind == "difference"]
        assert labels.count("Linear probe: ours minus published") == rows


def test_published_rows_can_be_all_or_none() -> None:
    records = grid(("ship",), VTAB_TASKS, (0,))
    kinds = {choice: [row.kind for row in table_of(records, published=choice).rows] for choice in ("all", "none")}
    assert kinds["all"].count("published") == len(published_rows())
    assert "published" not in kinds["none"]


def test_published_means_of_the_table_are_those_of_the_data_file() -> None:
    table = table_of(grid(("ship",), VTAB_TASKS, (0,)))
    shown = texts(table, next(row.cells[0].text for row in table.rows if row.kind == "published"))
    assert (shown["mean of groups"], shown["mean of tasks"]) == ("76.9", "74.6")


def test_published_rows_are_compared_with_the_method_of_their_name() -> None:
    table = table_of(grid(METHODS, VTAB_TASKS, (0,)))
    pairs = [
        (above.cells[0].text.casefold(), str(row.cells[0].value).partition(": ours minus")[0].casefold())
        for above, row in pairwise(table.rows)
        if row.kind == "difference"
    ]
    assert len(pairs) == 7
    assert all(published.startswith(ours) for published, ours in pairs)


OF_ZOO: dict[str, tuple[str, dict[str, Any]]] = {
    "Partial-1": ("partial", {"blocks": 1}),
    "Bias / BitFit": ("bitfit", {}),
    "Adapter-8": ("adapter", {"form": "noah", "dim": 8}),
    "AdaptFormer": ("adaptformer", {"dim": 8, "scale": 0.1}),
    "LoRA-8": ("lora", {"form": "noah", "rank": 8}),
    "FacT-TT": ("fact-tt", {}),
    "FacT-TK": ("fact-tk", {}),
    "RepAdapter": ("repadapter", {"dim": 8}),
    "Convpass": ("convpass", {"dim": 8}),
    "Convpass-attn": ("convpass-attn", {"dim": 8}),
}


def published_of(records: Records) -> dict[str, str]:
    """Return the names of the published rows below ours, each with the label that a difference is of, or nothing."""
    rows = [row for row in table_of(records).rows if row.kind in ("published", "difference")]
    names: dict[str, str] = {}
    for row in rows:
        value = str(row.cells[0].value)
        if row.kind == "published":
            names[value.removesuffix(" (published)")] = ""
        else:
            names[list(names)[-1]] = value.removesuffix(": ours minus published")
    return names


@pytest.mark.parametrize("name", OF_ZOO)
def test_adapters_are_compared_with_published_rows_of_their_configuration(name: str) -> None:
    method, settings = OF_ZOO[name]
    own = {f"cfg.{key}": value for key, value in {**settings, "unrelated": 1}.items()}
    assert published_of(grid((method,), VTAB_TASKS[:2], (0,), **own)) == {name: method_name(method)}
    for key in settings:
        assert published_of(grid((method,), VTAB_TASKS[:2], (0,), **{**own, f"cfg.{key}": 2})) == {}, key


def test_a_published_row_of_other_weights_has_a_difference_to_runs_on_those_weights_alone() -> None:
    assert {row.backbone for row in published_rows() if row.method == "SSF"} == {"ViT-B/16 IN-21k AugReg"}
    augreg = "vit_base_patch16_224.augreg_in21k"
    records = grid(("ssf",), VTAB_TASKS[:2], (0,))
    assert published_of(records) == {"SSF": ""}
    (note,) = (note for note in table_of(records).notes if note.startswith("No difference"))
    assert augreg in note
    assert published_of([{**record, "backbone": augreg} for record in records]) == {"SSF": "SSF"}
    assert published_of(grid(("vpt-shallow",), VTAB_TASKS[:2], (0,), backbone=augreg)) == {"VPT-Shallow": ""}


def test_published_parameters_stand_under_what_they_count() -> None:
    table = table_of(grid(("ship",), VTAB_TASKS, (0,)), published="all")
    counts = {row.cells[0].value: [cell.value for cell in row.cells[-2:]] for row in table.rows}
    assert counts["SSF (published)"] == [pytest.approx(240_000), None]
    assert counts["VPT-Deep (published)"] == [None, pytest.approx(530_000)]
    assert counts["E2VPT (published)"] == [None, None]
