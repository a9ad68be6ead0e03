"""The table of results on the terminal: named averages, collapsed and failed runs, narrow terminals."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from shipbench.cli.layout import duration
from shipbench.cli.tables import print_results, result_table
from shipbench.planning.plan import Plan, PlannedRun, State
from shipbench.record import RunRecord
from shipbench.spec import RunSpec
from shipbench.tasks import SUITES, Task, get_task, parse_tasks
from tests.cli.builders import make_record, results_folder

VTAB = SUITES[0]


def grid(tasks: Sequence[Task], methods: Sequence[str] = ("ship",), seeds: int = 1) -> list[RunRecord]:
    """Return a record for every task, method and seed; accuracy grows with all three."""
    return [
        make_record(
            f"{method}-{task.name}-{seed}",
            task=task.name,
            group=task.group,
            suite=task.suite,
            method=method,
            seed=seed,
            final_test_acc=0.30 + 0.01 * i + 0.1 * m + 0.02 * seed,
        )
        for i, task in enumerate(tasks)
        for m, method in enumerate(methods)
        for seed in range(seeds)
    ]


def rows(records: Sequence[RunRecord], tasks: Sequence[Task], width: int = 200) -> dict[str, list[str]]:
    """Return the cells of the printed table by the first cell of their row."""
    console = Console(width=width, color_system=None, markup=False)
    with console.capture() as capture:
        console.print(result_table(records, tasks))
    lines = [line for line in capture.get().splitlines() if line[:1] in ("│", "┃")]
    cells = [[cell.strip() for cell in line.replace("┃", "│").strip("│").split("│")] for line in lines]
    return {row[0]: row[1:] for row in cells}


def test_a_complete_suite_has_both_averages() -> None:
    table = rows(grid(VTAB.tasks), VTAB.tasks)
    by_group = [[0.30 + 0.01 * i for i, task in enumerate(VTAB.tasks) if task.group == group] for group in groups()]
    assert table["mean of tasks"] == ["39.0"]
    assert table["mean of groups"] == [f"{100 * sum(sum(g) / len(g) for g in by_group) / 3:.1f}"]


def test_a_task_that_is_called_as_an_average_has_a_row_of_its_own() -> None:
    names = ("mean of tasks", "bugs")
    tasks = [Task(name, "Field", "own", 2, 8, 8, "folder", "", location=name, suite_tasks=names) for name in names]
    table = rows(grid(tasks), tasks)
    assert (table["mean of tasks (task)"], table["bugs"], table["mean of tasks"]) == (["30.0"], ["31.0"], ["30.5"])


def groups() -> list[str]:
    return list(dict.fromkeys(task.group for task in VTAB.tasks))


@pytest.mark.parametrize("text", ["natural", "dtd,svhn", "dtd,eurosat,kitti"])
def test_part_of_a_suite_is_never_averaged_under_the_name_of_the_whole(text: str) -> None:
    tasks = parse_tasks(text)
    table = rows(grid(tasks), tasks)
    assert list(table)[-1] == f"mean of these {len(tasks)} tasks"
    assert "mean of groups" not in table
    assert "mean of tasks" not in table
    assert table[f"mean of these {len(tasks)} tasks"] == [f"{30 + (len(tasks) - 1) / 2:.1f}"]


def test_every_suite_has_averages_of_its_own() -> None:
    tasks = parse_tasks("dtd,svhn,digits,textures,demo-tiny")
    table = rows([*grid(tasks[:2]), *grid(tasks[2:4]), *grid(tasks[4:])], tasks)
    assert list(table) == ["task", "dtd", "svhn", "mean of these 2 tasks", "digits", "textures", "demo-tiny"]


def test_a_failed_or_missing_run_leaves_its_averages_empty() -> None:
    tasks = parse_tasks("dtd,svhn")
    records = grid(tasks, ("linear", "ship", "vpt-deep"), seeds=2)
    failed = [r for r in records if r.run_id == "linear-dtd-1"]
    broken = make_record(failed[0].run_id, method="linear", seed=1, status="failed", final_test_acc=math.nan)
    kept = [r for r in records if r.method != "ship" or r.task != "svhn"]
    table = rows([broken if r.run_id == broken.run_id else r for r in kept], tasks)
    assert table["dtd"][0] == "30.0 (1 failed)"
    assert table["svhn"][1] == "-"
    assert table["mean of these 2 tasks"] == ["-", "-", "51.5"]


def test_seeds_share_a_cell_and_settings_do_not() -> None:
    tasks = parse_tasks("dtd")
    varied = [
        make_record(f"k{k}-{s}", seed=s, settings={"k": k}, final_test_acc=k / 10) for k in (3, 5) for s in (0, 1)
    ]
    table = rows(varied, tasks)
    assert table == {"method": ["dtd"], "ship, k=3": ["30.0 ± 0.0"], "ship, k=5": ["50.0 ± 0.0"]}


def test_a_run_that_does_not_exceed_chance_is_marked() -> None:
    tasks = parse_tasks("dtd,svhn")
    records = [
        make_record("a", task="dtd", seed=0, final_test_acc=0.25, chance_acc=0.25),
        make_record("b", task="dtd", seed=1, final_test_acc=0.93, chance_acc=0.25),
        make_record("c", task="svhn", seed=0, final_test_acc=0.26, chance_acc=0.25),
        make_record("d", task="svhn", seed=1, final_test_acc=0.1, chance_acc=math.nan),
    ]
    table = rows(records, tasks)
    assert table["dtd"] == ["59.0 ± 48.1‡"]
    assert "‡" not in table["svhn"][0]


def test_many_variants_become_rows() -> None:
    tasks = parse_tasks("demo-tiny")
    switches = ("", "no-hierarchy", "no-shared-prompts", "no-attribute-prompts", "no-matching-loss")
    records = [make_record(name or "full", task="demo-tiny", suite="demo-tiny", switches=name) for name in switches]
    table = rows(records, tasks, width=80)
    assert list(table) == ["method", "ship", *(f"ship [{name}]" for name in switches[1:])]


def test_nothing_is_cut_on_a_narrow_terminal() -> None:
    tasks = list(VTAB.tasks)
    methods = ("full", "linear", "ship", "vpt-deep", "vpt-shallow")
    console = Console(width=80, color_system=None, markup=False)
    with console.capture() as capture:
        console.print(result_table(grid(tasks, methods, seeds=3), tasks))
    assert "…" not in capture.get()
    assert all(task.name in capture.get() for task in tasks)
    assert max(map(len, capture.get().splitlines())) <= 80


def test_averages_need_no_heavy_import() -> None:
    code = (
        "import sys, shipbench.cli.tables, shipbench.statistics\n"
        "print(*{'torch', 'pandas', 'scipy', 'statsmodels', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(("task", "cautious"), [("demo-tiny", True), ("digits", True), ("dtd", False)])
def test_numbers_of_the_demo_suites_come_with_a_caution(
    task: str, cautious: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results_folder(tmp_path, [make_record("a1", task=task, suite=get_task(task).suite)])
    runs = (PlannedRun(RunSpec("ship", task), "a1", State.DONE),)
    print_results(Plan(runs, ()), tmp_path)
    assert ("a demonstration and a regression net, not a benchmark" in capsys.readouterr().out) == cautious


def test_the_title_speaks_of_seeds_where_a_cell_has_several() -> None:
    titles = [result_table(grid(VTAB.tasks, ("ship", "linear"), seeds=seeds), VTAB.tasks).title for seeds in (1, 2)]
    assert titles == ["final test accuracy, %", "final test accuracy, % (mean over seeds ± standard deviation)"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "1 s"), (59.7, "1 min"), (200.0, "3 min"), (3900.0, "1 h 5 min"), (93_600.0, "1 d 2 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
