"""The last line of a command names the natural next one."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from shipbench.cli import next_steps
from shipbench.cli.options import GridOptions
from shipbench.cli.run import plan_runs, say_failed
from shipbench.data.inspection.verify import TaskReport
from shipbench.engine.attempt import failed_record
from shipbench.results.store import Store
from shipbench.spec import RunSpec
from tests.cli.builders import make_record, results_folder, two_folders
from tests.conftest import Outcome, Shipbench
from tests.data.builders import vtab_tree


def last_line(outcome: Outcome) -> str:
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("next: ") == 1
    return outcome.err.splitlines()[-1].partition("  #")[0]


def test_runs_lead_to_a_report(shipbench: Shipbench, line: tuple[object, ...], tmp_path: Path) -> None:
    report = f"next: shipbench report --results {tmp_path / 'r'}"
    assert last_line(shipbench("run", "--method", "linear", *line)) == report
    assert last_line(shipbench("ablate", "--switch", "no-hierarchy", *line)) == report
    assert last_line(shipbench("tune", "--method", "linear", "--grid", "lr=0.1,0.2", *line)) == report


@pytest.mark.parametrize(
    "command", [("run", "--method", "ship"), ("ablate",), ("tune", "--method", "ship", "--grid", "lr=1,2")]
)
def test_a_dry_run_leads_to_the_real_one(
    shipbench: Shipbench, line: tuple[object, ...], command: tuple[str, ...]
) -> None:
    assert last_line(shipbench(*command, *line, "--dry-run")) == "next: the same command without --dry-run"


def test_the_results_folder_is_named_where_it_is_not_the_usual_one(
    shipbench: Shipbench, line: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert last_line(shipbench("run", "--method", "linear", *line, "--results", "results")) == "next: shipbench report"


def test_the_usual_results_folder_is_named_where_the_environment_sets_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHIPBENCH_RESULTS", "others")
    next_steps.after_run(Path("results"))
    assert capsys.readouterr().err.startswith("next: shipbench report --results results  #")


def test_a_study_without_a_report_leads_to_one(shipbench: Shipbench, tmp_path: Path, cache: Path) -> None:
    data, file = vtab_tree(tmp_path / "data", tasks=("dtd",)), tmp_path / "study.toml"
    file.write_text(
        '[study]\ntasks = "dtd"\nbackbone = "test_vit"\ncheckpoint = "random"\nepochs = 1\n'
        'set = { image_size = 64 }\n[[run]]\nmethods = "linear"\n'
    )
    report = f"next: shipbench report --results {tmp_path / 'r'}"
    assert last_line(shipbench("study", file, "--data", data, "--results", tmp_path / "r")) == report
    assert last_line(shipbench("study", file, "--report", "--results", tmp_path / "r")) == report


ODD = Path("my $runs; (old)")


@pytest.mark.parametrize(
    "step",
    [
        lambda: next_steps.after_run(ODD),
        lambda: next_steps.look_at("report", ODD),
        lambda: next_steps.after_list_runs(ODD),
        lambda: next_steps.after_export(ODD, ""),
        lambda: next_steps.after_push("a/b", str(ODD), dry_run=False),
        lambda: next_steps.after_evaluate(ODD),
        lambda: next_steps.after_status(ODD, failed=False, coming=True),
        lambda: next_steps.after_status(ODD, failed=True, coming=False),
        lambda: next_steps.after_import(ODD, dry_run=False),
        lambda: next_steps.after_inspect("dtd", ODD),
        lambda: next_steps.after_fetch(ODD),
        lambda: next_steps.after_import_fgvc(["CUB"], ODD),
        lambda: next_steps.after_verify(ODD),
        lambda: next_steps.after_verify_own(str(ODD), None),
        lambda: next_steps.after_verify_own("csv:a", ODD),
        lambda: next_steps.after_demo(ODD, None, full=False),
        lambda: next_steps.after_demo(Path("r"), ODD, full=False),
        lambda: next_steps.after_demo(ODD, None, full=True),
    ],
)
def test_a_folder_of_any_name_is_one_word_of_a_suggested_command(
    step: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    step()
    assert str(ODD) in shlex.split(capsys.readouterr().err, comments=True)


def test_failed_runs_are_listed_by_a_command_that_can_be_pasted(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = GridOptions(tasks="demo-tiny", results=tmp_path / ODD)
    plan = plan_runs([RunSpec("linear", "demo-tiny")], options)
    Store(options.results).write(failed_record(plan.chosen[0], None, "lost"))
    assert say_failed(plan, options)
    sentence, _, command = capsys.readouterr().err.partition("; see: ")
    assert sentence == "1 of 1 runs failed"
    assert shlex.split(command) == ["shipbench", "list", "runs", "--results", str(options.results)]


def test_a_report_leads_to_its_page(shipbench: Shipbench, tmp_path: Path) -> None:
    results = results_folder(tmp_path / "r", [make_record("a1")])
    for formats, page in (("html", tmp_path / "p" / "index.html"), ("md", tmp_path / "p")):
        command = ("report", "--results", results, "--output", tmp_path / "p", "--format", formats)
        assert last_line(shipbench(*command)) == f"next: look at the report in {page}"


def test_a_comparison_leads_to_its_figure(shipbench: Shipbench, tmp_path: Path) -> None:
    a, b = two_folders(tmp_path, 300, 298)
    assert last_line(shipbench("diff", a, b)) == f"next: shipbench diff {a} {b} --output DIR"
    figure = f"next: look at the figure in {tmp_path / 'o' / 'differences.svg'}"
    assert last_line(shipbench("diff", a, b, "--output", tmp_path / "o")) == figure
    assert shipbench("diff", a, b, "--json").err == ""


def test_data_leads_from_import_to_verify_to_run(
    shipbench: Shipbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = vtab_tree(tmp_path / "source"), tmp_path / "my data"
    verify = f"next: shipbench data verify '{target}'"
    assert last_line(shipbench("data", "import", source, "--to", target)) == verify
    monkeypatch.setattr(
        "shipbench.data.inspection.verify.verify", lambda *_, **__: [TaskReport("dtd", target, problems=())]
    )
    run = f"next: shipbench run --method ship --tasks all --data '{target}'"
    assert last_line(shipbench("data", "verify", target)) == run


@pytest.mark.parametrize(
    ("listed", "suggested"),
    [
        ("tasks", "shipbench run --method ship --tasks NAME"),
        ("methods", "shipbench run --method NAME --tasks demo"),
        ("ablations", "shipbench ablate --tasks demo-tiny --switch NAME"),
        ("selections", "shipbench report --select NAME"),
        ("engines", "shipbench run --method ship --tasks demo --engine NAME"),
        ("trackers", "shipbench run --method ship --tasks demo --track NAME"),
    ],
)
def test_lists_lead_to_the_command_that_takes_their_names(shipbench: Shipbench, listed: str, suggested: str) -> None:
    assert last_line(shipbench("list", listed)) == f"next: {suggested}"
    assert shipbench("list", listed, "--json").err == ""


def test_an_inspected_task_leads_to_a_run_on_it(shipbench: Shipbench, tmp_path: Path, cache: Path) -> None:
    tree = vtab_tree(tmp_path / "data", tasks=("dtd",))
    suggested = f"next: shipbench run --method ship --tasks dtd --data {tree}"
    assert last_line(shipbench("data", "inspect", "dtd", "--data", tree)) == suggested
