"""``shipbench list`` and ``--help``: complete on narrow terminals, and without heavy imports."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from shipbench.backbones.names import pretrained_names
from shipbench.cli.published import chosen_rows, importable
from shipbench.methods import get_method, list_methods
from shipbench.record import RunRecord
from shipbench.runtime import plug_ins
from tests.cli.builders import as_terminal, make_record, plug_in, results_folder
from tests.conftest import Shipbench

HEAVY = ("torch", "timm", "pandas", "pyarrow", "matplotlib", "sklearn", "scipy", "numpy")


def test_tasks(shipbench: Shipbench) -> None:
    rows = json.loads(shipbench("list", "tasks", "--json").out)
    vtab = [row for row in rows if row["suite"] == "vtab-1k"]
    assert len(vtab) == 19
    assert sum(row["n_test"] for row in vtab) == 387_904


def test_methods(shipbench: Shipbench) -> None:
    names = [row["name"] for row in json.loads(shipbench("list", "methods", "--json").out)]
    assert {"full", "linear", "ship", "vpt-deep", "vpt-shallow"} <= set(names)


def test_what_a_method_prints_is_no_part_of_a_list(shipbench: Shipbench, monkeypatch: pytest.MonkeyPatch) -> None:
    def noisy() -> list[str]:
        print("a method of yours")
        return ["linear"]

    monkeypatch.setattr("shipbench.methods.list_methods", noisy)
    outcome = shipbench("list", "methods", "--json")
    assert [row["name"] for row in json.loads(outcome.out)] == ["linear"]
    assert "a method of yours" in outcome.err


def test_selections(shipbench: Shipbench) -> None:
    rows = json.loads(shipbench("list", "selections", "--json").out)
    assert [row["name"] for row in rows][:3] == ["final", "validation", "oracle"]
    assert all(row["counts"] for row in rows)


LACKING = {
    "dask": "distributed is not installed",
    "slurm": "submitit is not installed",
    **{name: f"{name} is not installed" for name in ("mlflow", "tensorboard", "trackio", "wandb")},
}


@pytest.mark.parametrize(
    ("kind", "names"),
    [("engines", ["dask", "local", "slurm"]), ("trackers", ["mlflow", "tensorboard", "trackio", "wandb"])],
)
def test_plug_ins_whose_library_is_missing(
    shipbench: Shipbench, monkeypatch: pytest.MonkeyPatch, kind: str, names: list[str]
) -> None:
    monkeypatch.setattr(plug_ins, "find_spec", lambda module: None)
    rows = json.loads(shipbench("list", kind, "--json").out)
    assert [row["name"] for row in rows if row["package"].startswith("shipbench ")] == names
    for row in rows:
        extra = f"shipbench[{row['name']}]" if row["name"] in LACKING else None
        reason = LACKING.get(row["name"])
        assert (row["usable"], row["reason"], row["extra"]) == (reason is None, reason, extra), row["name"]
    shown = {row[0]: row[1:4] for row in cells(shipbench("list", kind).out)}
    assert shown[names[0]] == ["no", LACKING[names[0]], f"shipbench[{names[0]}]"]
    assert shown.get("local", ["yes", "", ""]) == ["yes", "", ""]


def test_what_else_a_plug_in_may_lack(shipbench: Shipbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plug_ins, "find_spec", lambda module: SimpleNamespace(origin=module))
    monkeypatch.setattr("shipbench.trackers.mlflow.find_spec", lambda module: None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.syspath_prepend(plug_in(tmp_path, "broken", "import no_such_module"))
    listed = [json.loads(shipbench("list", kind, "--json").out) for kind in ("engines", "trackers")]
    assert {row["name"]: row["reason"] for rows in listed for row in rows if not row["usable"]} == {
        "slurm": "sbatch is not on the PATH",
        "mlflow": "MLFLOW_TRACKING_URI is not set",
        "broken": "No module named 'no_such_module'",
    }


def test_ablations(shipbench: Shipbench) -> None:
    rows = json.loads(shipbench("list", "ablations", "--json").out)
    assert [row["switch"] for row in rows] == [
        "no-hierarchy",
        "no-shared-prompts",
        "no-attribute-prompts",
        "no-matching-loss",
        "coupled-attention",
    ]


def test_ablations_of_any_method(shipbench: Shipbench) -> None:
    assert shipbench("list", "ablations", "--method", "linear", "--json").out == "[]\n"
    outcome = shipbench("list", "ablations", "--method", "linear")
    assert "shipbench ablate --method linear --tasks demo-tiny --sweep KEY=V1,V2" in outcome.out + outcome.err
    assert "did you mean 'linear'" in shipbench("list", "ablations", "--method", "linea").err
    optional = next(method for name in list_methods() if (method := get_method(name)).optional_switches)
    listed = shipbench("list", "ablations", "--method", optional.name).out
    assert "Varied only if --switch names them:" in listed
    assert all(switch in listed for switch in optional.all_switches)


def test_backbones(shipbench: Shipbench) -> None:
    names = [row["name"] for row in json.loads(shipbench("list", "backbones", "--json").out)]
    assert names[:2] == ["demo-vit-small-patch14", "vit_base_patch16_224.orig_in21k"]


def test_backbones_are_pretrained_ones_that_match(shipbench: Shipbench) -> None:
    rows = json.loads(shipbench("list", "backbones", "--pattern", "vit_tiny*", "--json").out)
    names = [row["name"] for row in rows]
    assert all(name.startswith("vit_tiny") for name in names[2:])
    # With the tag of its weights.
    assert "vit_tiny_patch16_224.augreg_in21k" in names


def test_backbones_are_those_of_timm_and_listed_fast_from_then_on(
    shipbench: Shipbench, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm

    for pattern in ("vit_tiny*", "vit_*.augreg_in21k", "*", "vit_tiny_patch16_224", "none*"):
        assert pretrained_names(pattern) == timm.list_models(pattern, pretrained=True)
    monkeypatch.setattr(timm, "list_models", lambda *_, **__: pytest.fail("timm was asked again"))
    assert "vit_tiny_patch16_224.augreg_in21k" in pretrained_names("vit_tiny*")


@pytest.mark.parametrize("content", ["", "[1]", "{}", '["cut'])
def test_a_damaged_memory_of_backbones_is_replaced(cache: Path, content: str) -> None:
    assert pretrained_names("vit_tiny*")
    (file,) = (cache / "backbones").glob("timm-*.json")
    file.write_text(content)
    assert "vit_tiny_patch16_224.augreg_in21k" in pretrained_names("vit_tiny*")
    assert file.stat().st_size > 10_000


def test_published(shipbench: Shipbench, tmp_path: Path) -> None:
    rows = json.loads(shipbench("list", "published", "--method", "vpt-deep", "--task", "dtd,Pets", "--json").out)
    assert {row["method"].split(" (")[0] for row in rows} == {"VPT-Deep"}
    assert {tuple(row["accuracy_percent"]) for row in rows} == {("dtd", "oxford_iiit_pet")}
    table = shipbench("list", "published", "--method", "linear").out
    assert "57.6" in table
    assert "52.9" in table
    of_task = shipbench("list", "published", "--method", "linear", "--task", "svhn,dtd").out
    assert [heading for heading in ("dtd", "svhn", "mean of tasks") if heading in of_task] == ["dtd", "svhn"]
    assert shipbench("list", "published", "--task", "digits").code == 2
    assert "did you mean" in shipbench("list", "published", "--method", "vpt-deeep").err


def test_published_rows_can_be_imported(shipbench: Shipbench, tmp_path: Path) -> None:
    file = tmp_path / "linear.csv"
    file.write_text(shipbench("list", "published", "--method", "linear", "--csv").out)
    outcome = json.loads(shipbench("import", "csv", file, "--results", tmp_path / "r", "--json").out)
    assert outcome["imported"] == 19
    assert {row["epoch_rule"] for row in outcome["results"]} == {""}


def test_a_csv_of_published_rows_tells_parameters_and_papers() -> None:
    row = chosen_rows("vpt-deep", "dtd")[0]
    counted = [replace(row, params_include_head=head) for head in (True, False, None)]
    paper = "Visual Prompt Tuning (Jia et al.), ECCV 2022"
    columns = ("method", "task", "accuracy", "params", "params_with_head", "source")
    assert importable([*counted, replace(row, trainable_params_millions=None)]) == [
        dict(zip(columns, ("VPT-Deep", "dtd", "65.8%", *numbers, paper), strict=True))
        for numbers in (("0.53M", "yes"), ("0.53M", "no"), ("0.53M", ""), ("", "no"))
    ]


def test_nothing_heavy_is_imported() -> None:
    helped = [(*command, "--help") for command in ((), ("run",), ("tune",), ("demo",), ("status",))]
    assert heavy_modules_of(*helped, ("list", "tasks"), ("list", "methods")) == []


def test_records_of_shipbench_are_listed_without_heavy_modules(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "r", [make_record(run_id) for run_id in ("a1", "b2")])
    assert heavy_modules_of(("list", "runs", "--results", folder), ("list", "runs", "a1", "--results", folder)) == []


def heavy_modules_of(*lines: Sequence[object]) -> list[str]:
    """Run commands one after the other in a new process and return the heavy modules that they have imported."""
    code = (
        "import json, sys\n"
        "from shipbench.cli import main\n"
        "for line in json.loads(sys.argv[1]):\n"
        "    sys.argv = ['shipbench', *line]\n"
        "    try: main()\n"
        "    except SystemExit as stop: assert not stop.code, (line, stop.code)\n"
        f"print('', *[name for name in {HEAVY!r} if name in sys.modules], sep='\\n')"
    )
    listed = json.dumps([[*map(str, line)] for line in lines])
    done = subprocess.run([sys.executable, "-c", code, listed], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.rpartition("\n\n")[2].split()


IDS = ("91d9707dc8a3b4f0", "91aa00112233445f", "0123456789abcdef")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    records = [
        make_record(IDS[0], task="diabetic_retinopathy", switches="no-attribute-prompts", final_test_acc=0.74),
        make_record(IDS[1], method="vpt-shallow", seed=12, final_test_acc=0.7415),
        make_record(IDS[2], status="failed", error="the loss is not finite in epoch 3 " * 9, final_test_acc=math.nan),
    ]
    return results_folder(tmp_path / "r", records)


@pytest.mark.parametrize("columns", [80, 120])
def test_run_ids_are_whole_and_accuracies_are_percent(
    shipbench: Shipbench, results: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    as_terminal(monkeypatch, columns)
    outcome = shipbench("list", "runs", "--results", results)
    assert all(run_id in outcome.out for run_id in IDS)
    assert {"74.0", "74.2"} <= set(outcome.out.split())
    table, _, errors = plain(outcome.out).rpartition("┘")
    assert max(map(len, table.splitlines())) <= columns
    assert "nan" not in table
    assert "…" not in table
    # No run is a tuning run.
    assert "val %" not in table
    assert errors.strip().startswith(f"{IDS[2]} failed: the loss")


@pytest.mark.parametrize(("columns", "is_table"), [(80, True), (68, True), (67, False)])
def test_run_ids_are_whole_in_any_column(
    shipbench: Shipbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int, is_table: bool
) -> None:
    records = [make_record(IDS[0], kind="evaluated", parent_run=IDS[1], train_seconds=1234.56)]
    as_terminal(monkeypatch, columns)
    names = "task,run_id,parent_run,final_test_acc,train_seconds"
    out = plain(shipbench("list", "runs", "--results", results_folder(tmp_path, records), "--columns", names).out)
    assert IDS[0] in out
    assert IDS[1] in out
    assert ("┌" in out or "┏" in out) == is_table
    assert max(map(len, out.splitlines())) <= columns


def test_an_error_is_folded_and_not_cut(shipbench: Shipbench, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_terminal(monkeypatch, 80)
    out = plain(shipbench("list", "runs", IDS[2], "--results", results, "--columns", "run_id,error").out)
    assert out.count("finite") == 9


def test_the_columns_of_runs_are_chosen_by_name(shipbench: Shipbench, results: Path) -> None:
    outcome = shipbench("list", "runs", "--results", results, "--columns", "task,best_test_epoch,image_size,cfg.lr")
    assert [line.strip("│").split("│") for line in outcome.out.splitlines() if "diabetic" in line] == [
        [" diabetic_retinopathy ", "                 ", " 224        ", " 0.001  "]
    ]
    rows = json.loads(shipbench("list", "runs", "--results", results, "--json", "--columns", "final_test_acc").out)
    assert [row["final_test_acc"] for row in rows] == [0.74, None, 0.7415]
    wrong = shipbench("list", "runs", "--results", results, "--columns", "final_acc")
    assert wrong.code == 2
    assert "did you mean 'final_test_acc'" in wrong.err


COLUMNS = {
    "tasks": "n_test,name",
    "methods": "summary,name",
    "backbones": "note,name",
    "ablations": "settings,switch",
    "selections": "counts,name",
    "engines": "usable,name",
    "trackers": "extra,name",
    "published": "method",
    "runs": "final_test_acc,run_id",
}


@pytest.mark.parametrize(("name", "columns"), COLUMNS.items(), ids=str)
def test_every_list_has_chosen_columns_in_every_format(
    shipbench: Shipbench, results: Path, monkeypatch: pytest.MonkeyPatch, name: str, columns: str
) -> None:
    monkeypatch.setenv("SHIPBENCH_RESULTS", str(results))
    outcomes = [shipbench("list", name, "--columns", columns, *form) for form in ((), ("--json",), ("--csv",))]
    assert [outcome.code for outcome in outcomes] == [0, 0, 0]
    table, document, file = [outcome.out for outcome in outcomes]
    assert [heading.strip(" %") for heading in table.splitlines()[1].strip("┃").split("┃")] == columns.split(",")
    assert {",".join(row) for row in json.loads(document)} == {columns}
    heading, *rows = csv.reader(io.StringIO(file))
    assert heading == columns.split(",")
    assert len(rows) >= len(json.loads(document))
    assert {len(row) for row in rows} == {len(heading)}
    assert [outcome.err for outcome in outcomes[1:]] == ["", ""]
    for form in ((), ("--json",), ("--csv",)):
        wrong = shipbench("list", name, "--columns", f"{columns}x", *form)
        assert (wrong.code, wrong.out, wrong.err.count("\n")) == (2, "", 1)
        assert f"did you mean {columns.rpartition(',')[2]!r}" in wrong.err
    both = shipbench("list", name, "--json", "--csv")
    assert (both.code, both.out) == (2, "")
    assert both.err == "error: --json and --csv cannot be combined; give one of them\n"


def test_a_csv_of_runs_has_every_column_and_quotes_values(shipbench: Shipbench, tmp_path: Path) -> None:
    record = make_record("a", status="failed", error='no "x",\x1b[31m\nno y', final_test_acc=math.nan, val_acc=0.12345)
    results = results_folder(tmp_path / "r", [record])
    (row,) = csv.DictReader(io.StringIO(shipbench("list", "runs", "--results", results, "--csv").out))
    assert list(row) == list(json.loads(shipbench("list", "runs", "--results", results, "--json").out)[0])
    assert (row["error"], row["final_test_acc"], row["val_acc"]) == ('no "x", [31m no y', "", "0.12345")
    (tmp_path / "empty" / "runs").mkdir(parents=True)
    empty = shipbench("list", "runs", "--results", tmp_path / "empty", "--csv").out
    assert [*row][: len(empty.split(","))] == empty.strip().split(",")


def test_a_table_of_published_rows_has_the_columns_of_json_too(shipbench: Shipbench) -> None:
    line = ("list", "published", "--method", "ship", "--task", "dtd,svhn")
    table = shipbench(*line, "--columns", "method,params (M),svhn,venue,accuracy_percent").out
    _, params, svhn, venue, accuracies = cells(table)[0]
    assert float(params) > 0
    assert re.fullmatch(r"dtd=[\d.]+, svhn=[\d.]+", accuracies)
    assert float(svhn) == pytest.approx(float(accuracies.rpartition("=")[2]), abs=0.051)
    assert re.search("[A-Z]", venue)


def test_json_has_every_column_and_null_for_the_unknown(shipbench: Shipbench, results: Path) -> None:
    rows = json.loads(shipbench("list", "runs", "--results", results, "--json").out)
    assert set(RunRecord.from_row(rows[0]).to_row()) <= set(rows[0])
    assert [row["val_acc"] for row in rows] == [None, None, None]


def test_overrides_are_shown_where_they_tell_runs_apart(shipbench: Shipbench, tmp_path: Path) -> None:
    swept = [make_record(f"a{k}", overrides=f"prompt_length={k}") for k in (5, 10)]
    alone = [make_record("b1", overrides="epochs=1"), make_record("b2", seed=1, overrides="epochs=1")]
    assert "prompt_length=5" in shipbench("list", "runs", "--results", results_folder(tmp_path / "a", swept)).out
    assert "epochs" not in shipbench("list", "runs", "--results", results_folder(tmp_path / "b", alone)).out


def test_runs_are_named_by_a_prefix(shipbench: Shipbench, results: Path) -> None:
    rows = json.loads(shipbench("list", "runs", "01", "91d", "--results", results, "--json").out)
    assert {row["run_id"] for row in rows} == {IDS[0], IDS[2]}
    several = shipbench("list", "runs", "91", "--results", results)
    assert several.code == 2
    assert all(run_id in several.err for run_id in IDS[:2])
    assert IDS[2] not in several.err


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {}])
def test_no_control_characters_without_colour_or_terminal(
    shipbench: Shipbench, results: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
        as_terminal(monkeypatch, 80)
    outcome = shipbench("list", "runs", "--results", results)
    assert "\x1b" not in outcome.out + outcome.err


def test_a_list_of_runs_suggests_their_export(shipbench: Shipbench, results: Path) -> None:
    outcome = shipbench("list", "runs", "--results", results)
    assert outcome.err.splitlines()[-1].startswith("next: shipbench export RUN run.safetensors --results")
    assert "next:" not in shipbench("list", "runs", "--results", results, "--json").err


def test_only_a_finished_training_can_be_exported(shipbench: Shipbench, tmp_path: Path) -> None:
    (tmp_path / "empty" / "runs").mkdir(parents=True)
    results_folder(tmp_path / "failed", [make_record("f", status="failed", error="lost")])
    results_folder(tmp_path / "imported", [make_record("i", kind="imported", origin="NOAH")])
    for name in ("empty", "failed", "imported"):
        outcome = shipbench("list", "runs", "--results", tmp_path / name)
        assert (outcome.code, outcome.err) == (0, "")


def test_results_of_another_harness_show_what_they_state(shipbench: Shipbench, tmp_path: Path) -> None:
    nothing = {"kind": "imported", "origin": "NOAH", "seed": -1, "final_test_acc": math.nan}
    records = [
        make_record("i0", **nothing, stated_acc=0.5),
        make_record("i1", **nothing, best_test_acc=0.75, task="svhn"),
        make_record("t0", best_test_acc=0.875, suite="z"),
    ]
    outcome = shipbench("list", "runs", "--results", results_folder(tmp_path, records))
    assert cells(outcome.out) == [
        ["i0", "done", "ship", "imported", "dtd", "", "NOAH", "", "50.0", ""],
        ["i1", "done", "ship", "imported", "svhn", "", "NOAH", "", "", "75.0"],
        ["t0", "done", "ship", "trained", "dtd", "0", "shipbench", "62.5", "", ""],
    ]


def test_shots_are_shown_where_a_run_has_few(shipbench: Shipbench, tmp_path: Path) -> None:
    records = [make_record("a", shots=4), make_record("b")]
    outcome = shipbench("list", "runs", "--results", results_folder(tmp_path, records))
    assert sorted(cells(outcome.out)) == [
        ["a", "done", "ship", "dtd", "0", "4", "62.5"],
        ["b", "done", "ship", "dtd", "0", "0", "62.5"],
    ]


def test_a_task_scored_by_class_shows_that_accuracy(shipbench: Shipbench, tmp_path: Path) -> None:
    by_class = {"headline_metric": "mean-per-class", "task": "bugs", "suite": "z"}
    records = [
        make_record("a", final_test_acc=0.75),
        make_record("b", **by_class, final_test_acc=0.75, final_test_mean_class_acc=0.5),
        make_record("c", **by_class, final_test_acc=math.nan, val_acc=0.75, val_mean_class_acc=0.25, protocol="tuning"),
    ]
    outcome = shipbench("list", "runs", "--results", results_folder(tmp_path, records))
    assert cells(outcome.out) == [
        ["a", "done", "ship", "dtd", "0", "accuracy", "", "75.0"],
        ["b", "done", "ship", "bugs", "0", "mean-per-class", "", "50.0"],
        ["c", "done", "ship", "bugs", "0", "mean-per-class", "25.0", ""],
    ]


def cells(table: str) -> list[list[str]]:
    """Return the cells of the rows of a table."""
    rows = [line.strip("│").split("│") for line in table.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in row] for row in rows]


def plain(text: str) -> str:
    """Return text without the escape sequences of a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
