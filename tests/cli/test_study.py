"""``shipbench study``: a grid from one file, executed, killed, resumed and reported."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from shipbench import RunSpec, load_results
from shipbench.cli import follow_ups
from shipbench.cli import study as study_command
from shipbench.cli.options import GridOptions
from shipbench.cli.study import StudyOptions
from shipbench.errors import InputError, StoreError
from shipbench.planning.plan import PlannedRun, State
from shipbench.planning.study import lock
from shipbench.planning.study.file import ExplainPart, Study
from shipbench.planning.study.follow_ups import FollowUpSection, Outputs, RequestedFollowUp
from shipbench.results.claims import ClaimLostError
from shipbench.results.tunings import load_tunings
from tests.cli.test_listing import cells, heavy_modules_of
from tests.conftest import Shipbench
from tests.data.builders import vtab_tree
from tests.forks import command, start_fork

STUDIES = Path(__file__).parents[2] / "studies"
TINY = """
[study]
results = "records"
tasks = "svhn"
backbone = "test_vit"
checkpoint = "random"
epochs = {epochs}
set = {{ image_size = 64 }}

[[run]]
name = "main"
methods = ["linear", "vpt-deep"]
seeds = "0-1"

[[run]]
name = "few"
methods = "linear"
shots = [1, 2]

[[ablate]]
name = "length"
method = "vpt-deep"
sweep.prompt_length = [10, 2]

[[tune]]
name = "tuned"
methods = "linear"
axes.lr = [0.1, 0.001]
seeds = "0-1"

[[evaluate]]
name = "robust"
of = ["main", "tuned"]
methods = "linear"
seeds = "0"
on = "svhn"
corrupt = "blur"
severity = "1,3"

[[explain]]
name = "features"
of = "main"
seeds = "1"

[[report]]
output = "reports/tiny"
title = "A tiny study"
"""


@pytest.fixture
def line(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    """The command line of a tiny study, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(TINY.format(epochs=1), encoding="utf-8")
    return ("study", "tiny.toml", "--data", vtab_tree(tmp_path / "data", tasks=("svhn",), n_train=25))


def _command_in(folder: Path, arguments: list[str], environment: dict[str, str]) -> None:
    os.chdir(folder)
    command(arguments, environment, folder / "log.txt")


def test_killed_and_resumed(shipbench: Shipbench, line: tuple[object, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"SHIPBENCH_CACHE": os.environ["SHIPBENCH_CACHE"]}
    process = start_fork(_command_in, Path.cwd(), [*map(str, line), "--jobs", "1"], environment)
    while not (before := {file: file.stat().st_mtime_ns for file in Path("records/runs").glob("[!.]*.parquet")}):
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    outcome = shipbench(*line)
    assert outcome.code == 0, outcome.err
    assert "9 runs: 9 to do" not in outcome.err
    assert "and 2 more once settings are chosen" in outcome.err
    assert all(file.stat().st_mtime_ns == written for file, written in before.items())
    assert not list(Path("records/plans").iterdir())
    records = load_results("records")
    evaluated, frame = (records[records["kind"] == kind] for kind in ("evaluated", "trained"))
    assert set(records["status"]) == {"done"}
    (tuning,) = load_tunings("records")
    assert len(tuning["final_runs"]) == 2
    assert set(tuning["final_runs"]) <= set(frame["run_id"])
    assert "linear on svhn: chose lr=" in outcome.err
    assert "A tiny study" in Path("reports/tiny/index.html").read_text(encoding="utf-8")
    lock = json.loads(Path("records/tiny.toml.lock").read_text(encoding="utf-8"))
    versions, precisions = lock["versions"], lock["precision"]
    assert set(versions) >= {"shipbench", "torch", "timm"}
    assert precisions == {"auto": frame["precision"].iloc[0]}
    assert_follow_ups(evaluated, frame, lock)
    made = [*Path("records/features").iterdir(), *(Path(f"records/runs/{i}.parquet") for i in evaluated["run_id"])]
    times = {path: path.stat().st_mtime_ns for path in made}
    made[0].unlink()
    made[-1].unlink()
    last = evaluated.iloc[-1]
    weights = Path(f"records/weights/{made[1].stem}.safetensors")
    away = weights.rename(f"{weights}.away")
    with monkeypatch.context() as patch:
        patch.setattr("shipbench.runs.evaluate.execute_evaluation", failing)
        failed = shipbench(*line)
    away.rename(weights)
    assert failed.code == 1
    assert "features [1/1] " in failed.err
    assert f"robust: run {last['parent_run']} FAILED: the disk is broken" in failed.err
    # Before the runs, and after them.
    assert failed.err.count(f"features: 1 of 2 runs has no features: run {made[1].stem}") == 2
    again = shipbench(*line, "--json")
    assert [text for text in again.err.splitlines() if text.startswith(("robust [", "features ["))] == [
        f"robust [4/4] {last['parent_run']} linear on svhn, seed 0: its test images, blur {last['severity']}"
    ]
    assert [path for path, time in times.items() if path.stat().st_mtime_ns != time] == [made[0], made[-1]]
    document = json.loads(again.out)
    assert [(part["name"], part["outputs"], part["done"], part["to_do"]) for part in document["follow_ups"]] == [
        ("robust", 4, 4, 0), ("features", 2, 2, 0),
    ]  # fmt: skip
    assert sum(run["to_do"] for run in document["runs"]) == document["waiting"] == document["seconds_left"] == 0
    assert {run["run_id"] for run in document["runs"]} == set(frame["run_id"])
    assert document["seconds_spent"] == pytest.approx(frame["train_seconds"].sum() + frame["eval_seconds"].sum())
    assert document["differences"] == []


def failing(*_: object, **__: object) -> None:
    """Stand for an evaluation that cannot be computed."""
    raise InputError("the disk is broken")


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), ClaimLostError("taken over")])
def test_a_follow_up_that_fails_stops_no_other(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def store(outputs: Outputs, _: Path) -> None:
        if outputs.run.run_id == "a0":
            raise error

    monkeypatch.setattr(follow_ups, "_store_features", store)
    runs = [PlannedRun(RunSpec("linear", "dtd", seed=seed), f"a{seed}", State.DONE) for seed in (0, 1)]
    requested = RequestedFollowUp(ExplainPart(name="features", of="main"), frozenset(), frozenset(), frozenset())
    section = FollowUpSection(requested, tuple(Outputs(run, 1, ready=True) for run in runs))
    assert follow_ups.execute_follow_ups([section], tmp_path) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"features: run a0 FAILED: {error}"
    assert lines[1].startswith("features [1/2] a1 ")
    error = StoreError("the disk is full")
    with pytest.raises(StoreError):
        follow_ups.execute_follow_ups([section], tmp_path)


def assert_follow_ups(evaluated: pd.DataFrame, trained: pd.DataFrame, lock: dict[str, Any]) -> None:
    """Check the evaluations and the features that the tiny study asks for."""
    runs = trained.set_index("run_id")
    parents = runs.loc[sorted(set(evaluated["parent_run"]))]
    assert set(parents["method"]) == {"linear"}
    assert set(parents["seed"]) == {0}
    assert sorted(evaluated.groupby("parent_run")["severity"].apply(sorted)) == [[1, 3], [1, 3]]
    assert set(evaluated["corruption"]) == {"blur"}
    assert lock["data"]["svhn (evaluated)"] == evaluated["data_fingerprint"].iloc[0]
    explained = runs.loc[[path.stem for path in Path("records/features").iterdir()]]
    assert sorted(explained["method"]) == ["linear", "vpt-deep"]
    assert set(explained["seed"]) == {1}
    page = Path("reports/tiny/index.html").read_text(encoding="utf-8")
    assert "t-SNE of the final features" in page
    assert "blur" in page


def test_a_dry_run_tells_the_cost_and_writes_nothing(shipbench: Shipbench, line: tuple[object, ...]) -> None:
    outcome = shipbench(*line, "--dry-run")
    assert outcome.code == 0, outcome.err
    assert "9 runs: 9 to do, 0 done, 0 failed before, and 2 more once settings are chosen" in outcome.err
    assert "FLOPs left" in outcome.err
    assert "robust: evaluations wait for their runs (4 to do)" in outcome.err
    assert "features: features wait for their runs (2 to do)" in outcome.err
    assert not Path("records").exists()
    assert shipbench(*line, "--only", "few").code == 0
    outcome = shipbench(*line, "--dry-run")
    assert "9 runs: 7 to do, 2 done" in outcome.err
    table = {row[0]: row[1:9] for row in cells(outcome.out)}
    # Methods, tasks, seeds, runs, and those that are shared, done, failed and to do.
    assert table["main"] == ["linear, vpt-deep", "svhn", "0,1", "4", "", "0", "0", "4"]
    assert table["few"] == ["linear", "svhn", "0", "2", "", "2", "0", "0"]
    # Prompts of length 10 are those of the first part.
    assert table["length"] == ["vpt-deep", "svhn", "0", "2", "1", "0", "0", "1"]
    assert table["robust: evaluations"][3:] == ["4", "", "0", "0", "0 + 4 waiting"]
    assert re.search(r"\d (s|min) and \S+ FLOPs left", outcome.err)
    assert shipbench(*line, "--only", "length").code == 0
    # Linear probes have yet to compute the features of trials and of corrupted images.
    rest = r"counted one run after the other \(\d+ of \d+ runs by FLOPs, others by records\)"
    assert re.search(rest, shipbench(*line, "--dry-run").err)
    assert "2 runs at a time" in shipbench(*line, "--dry-run", "--jobs", "2").err


def test_a_dry_run_refuses_everything_before_it_notes_anything(shipbench: Shipbench, line: tuple[object, ...]) -> None:
    wrong = {"shots = 0": "shots '0' is not a list", "set.lr = 'fast'": "lr='fast' is not a number"}
    parts = [f'[[run]]\nname = "{i}"\nmethods = "linear"\n{key}\n' for i, key in enumerate(wrong)]
    study = Path("tiny.toml")
    study.write_text(study.read_text(encoding="utf-8") + "\n".join(parts), encoding="utf-8")
    refused = shipbench(*line, "--dry-run")
    note, heading = "svhn has 25 train images", "error: 2 problems:\n"
    assert (refused.code, refused.out, note in refused.err) == (2, "", False)
    problems = refused.err.partition(heading)[2].splitlines()
    for i, (problem, words) in enumerate(zip(problems, wrong.values(), strict=True)):
        assert problem.startswith(f"- part '{i}' of tiny.toml: {words}")
    without_lock = shipbench(*line, "--only", "main", "--dry-run", "--locked")
    assert (without_lock.code, note in without_lock.err) == (2, False)
    assert "error: --locked: there is no lock to compare with" in without_lock.err
    assert note in shipbench(*line, "--only", "main", "--dry-run").err


def test_a_time_limit_ends_a_sitting(shipbench: Shipbench, line: tuple[object, ...]) -> None:
    Path("tiny.toml").write_text(TINY.format(epochs=100_000), encoding="utf-8")
    outcome = shipbench(*line, "--only", "length", "--for", "2s")
    assert outcome.code == 0, outcome.err
    assert "stopped" in outcome.err
    assert "the same command continues from there" in outcome.err
    assert not list(Path("records").glob("runs/*.parquet"))


def test_another_machine_is_compared_with_the_lock(
    shipbench: Shipbench, line: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = {"linear": {"own-probes": "2.0"}}
    monkeypatch.setattr("shipbench.planning.study.lock.releases_of", lambda name: packages.get(name, {}))
    assert shipbench(*line, "--only", "few").code == 0
    lock = json.loads(Path("records/tiny.toml.lock").read_text(encoding="utf-8"))
    lock["versions"] |= {"torch": "1.0.0", "own-probes": "1.0"}
    lock["precision"] = {"auto": "tf32"}
    lock["data"] = dict.fromkeys(lock["data"], "0" * 64)
    Path("tiny.toml.lock").write_text(json.dumps(lock), encoding="utf-8")
    outcome = shipbench(*line, "--dry-run")
    assert outcome.code == 0
    assert "and 1.0.0 in tiny.toml.lock." in outcome.err
    assert "own-probes is 2.0 here and 1.0 in tiny.toml.lock." in outcome.err
    assert "Images or labels of svhn (train, test) differ" in outcome.err
    assert "and tf32 in tiny.toml.lock; set precision" in outcome.err
    Path("tiny.toml.lock").write_text(json.dumps({**lock, "precision": {}}), encoding="utf-8")
    assert "precision" not in shipbench(*line, "--dry-run").err
    refused = shipbench(*line, "--locked")
    assert refused.code == 2
    assert "1.0.0" in refused.err
    assert len(load_results("records")) == 2
    Path("tiny.toml.lock").write_text("{}", encoding="utf-8")
    assert "is not a lock file" in shipbench(*line, "--dry-run").err


def test_a_run_that_fails_and_a_tuning_without_a_choice_are_failures(
    shipbench: Shipbench, line: tuple[object, ...]
) -> None:
    text = """
    [study]
    results = "records"
    tasks = "svhn"
    backbone = "test_vit"
    checkpoint = "random"
    epochs = 3
    set = { image_size = 64, optimizer = "sgd", warmup_epochs = 0, lr = 1e38 }
    """
    runs, tune = '[[run]]\nmethods = "linear"\n', '[[tune]]\nmethods = "linear"\naxes.weight_decay = [0.1, 0.2]\n'
    Path("tiny.toml").write_text(text + runs, encoding="utf-8")
    outcome = shipbench(*line)
    assert (outcome.code, outcome.err.count("1 of 1 run failed; --retry-failed repeats them")) == (1, 1), outcome.err
    assert "\n1 run: 1 to do, 0 done" in f"\n{outcome.err}"
    Path("tiny.toml").write_text(text + tune, encoding="utf-8")
    outcome = shipbench(*line)
    assert outcome.code == 1
    assert "linear on svhn: nothing chosen, because every setting has a failed run" in outcome.err


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), (" 1h1m1s ", 3661)]
)
def test_durations(text: str, seconds: int) -> None:
    assert study_command._duration(text) == seconds


def test_the_results_folder_is_that_of_the_option_the_file_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    in_file, without = (Study(Path("a.toml"), results, (), (), {}) for results in (Path("records"), None))
    places = []
    for variable in ("", "elsewhere"):
        monkeypatch.setenv("SHIPBENCH_RESULTS", variable)
        options = (StudyOptions(results=Path("mine")), StudyOptions())
        places.append([str(each.for_grid(study).results) for each in options for study in (in_file, without)])
    assert places == [["mine", "mine", "records", "results"], ["mine", "mine", "records", "elsewhere"]]


def test_the_options_of_a_study_are_those_of_its_runs() -> None:
    options = StudyOptions(device="cuda:1", jobs=2, stack="8", keep_weights="full", retry_failed=True, dry_run=True)
    study = Study(Path("a.toml"), Path("r"), (), (), {})
    shared = {
        "device": "cuda:1",
        "jobs": 2,
        "stack": "8",
        "keep_weights": "full",
        "retry_failed": True,
        "dry_run": True,
    }
    assert options.for_grid(study) == GridOptions(tasks="", results=Path("r"), **shared)  # type: ignore[arg-type]


def test_a_lock_is_kept_until_it_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {"format": lock.FORMAT, "study": "s", "versions": {"torch": "2"}, "data": {}, "weights": {}, "precision": {}}
    theirs = {**ours, "versions": {"torch": "1"}}
    monkeypatch.setattr(lock, "make_lock", lambda *_: ours)
    study = Study(tmp_path / "a.toml", None, (), (), {})
    place, other = tmp_path / "r" / "a.toml.lock", tmp_path / "other.lock"

    def compared(*, dry_run: bool = False, **chosen: Any) -> list[str]:
        grid: Any = SimpleNamespace(unread="")
        options = GridOptions(tasks="", results=tmp_path / "r", dry_run=dry_run)
        return study_command._compare(study, grid, options, StudyOptions(**chosen))

    assert compared(dry_run=True) == []
    assert not place.exists()
    assert compared() == []
    assert lock.read_lock(place) == ours
    for path in (place, other):
        lock.write_lock(path, theirs)
    assert compared() == [f"torch is 2 here and 1 in {place}."]
    assert lock.read_lock(place) == theirs
    assert compared(relock=True) == []
    assert lock.read_lock(place) == ours
    assert compared(lock=other) == [f"torch is 2 here and 1 in {other}."]
    with pytest.raises(InputError, match=rf"(?s)--locked: .*torch is 2 here and 1 in {other}\."):
        compared(lock=other, locked=True)


def test_reports_alone(shipbench: Shipbench, line: tuple[object, ...]) -> None:
    assert shipbench(*line, "--report").code == 2
    assert shipbench(*line, "--only", "few").code == 0
    Path("reports/tiny/index.html").unlink()
    assert shipbench(*line, "--report").code == 0
    assert Path("reports/tiny/index.html").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--for", "5x"), "--for '5x' is not a duration"),
        (("--only", "fwe"), "did you mean 'few'"),
        (("--only", ","), "--only is empty; name parts of tiny.toml"),
        (
            ("--locked",),
            "--locked: there is no lock to compare with: neither tiny.toml.lock nor records/tiny.toml.lock",
        ),
        (("--locked", "--relock"), "--relock replaces the lock that --locked compares with"),
        (("--lock", "none.lock"), "none.lock does not exist"),
        (("--engine", "locl"), "did you mean 'local'"),
        (("--engine", "slurm", "--cluster", "partion=gpu"), "did you mean 'partition'"),
        (("--data", "nowhere"), "part 'main'"),
    ],
)
def test_wrong_options_are_refused(
    shipbench: Shipbench, line: tuple[object, ...], options: tuple[str, ...], words: str
) -> None:
    outcome = shipbench(*line, *options)
    assert outcome.code == 2
    assert words in outcome.err
    assert not Path("records/runs").exists()


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ('select = "fianl"', "[[report]] of tiny.toml: select: unknown rule 'fianl' (did you mean 'final'?)"),
        ('format = "mdd"', "unknown format 'mdd'"),
        ('style = "cvpt"', "unknown style 'cvpt'"),
        ('published = "some"', "[[report]] of tiny.toml: published: unknown choice 'some'"),
        ('imported = "some"', "[[report]] of tiny.toml: imported: unknown choice 'some'"),
        ('baseline = "vpt-depe"', "baseline: no part trains 'vpt-depe' (did you mean 'vpt-deep'?), and no record is"),
        ('baseline = "adapter"', "baseline: no part trains 'adapter', and no record is of it"),
    ],
)
def test_a_report_that_could_not_be_written_is_refused_before_any_run(
    shipbench: Shipbench, line: tuple[object, ...], key: str, words: str
) -> None:
    text = Path("tiny.toml").read_text(encoding="utf-8")
    Path("tiny.toml").write_text(f"{text}{key}\n", encoding="utf-8")
    outcome = shipbench(*line)
    assert outcome.code == 2
    assert words in outcome.err
    assert not Path("records/runs").exists()


def test_a_report_waits_for_the_part_with_its_baseline(shipbench: Shipbench, line: tuple[object, ...]) -> None:
    text = Path("tiny.toml").read_text(encoding="utf-8")
    Path("tiny.toml").write_text(f'{text}baseline = "linear"\n', encoding="utf-8")
    outcome = shipbench(*line, "--only", "length")
    assert outcome.code == 0, outcome.err
    assert "reports/tiny is not written: its baseline linear has no run yet" in outcome.err
    assert outcome.err.splitlines()[-1].startswith("next: shipbench report --results records")
    assert not Path("reports").exists()
    assert len(load_results("records")) == 2
    assert shipbench(*line, "--report").code == 2
    assert shipbench(*line, "--only", "few").code == 0
    assert Path("reports/tiny/index.html").is_file()


def test_a_dry_run_loads_neither_torch_nor_pandas(tmp_path: Path) -> None:
    line = ("study", str(STUDIES / "ship-paper.toml"), "--results", str(tmp_path / "r"), "--dry-run")
    assert set(heavy_modules_of(line)) <= {"numpy"}


def test_a_dry_run_needs_no_data(shipbench: Shipbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHIPBENCH_DATA", raising=False)
    outcome = shipbench("study", STUDIES / "ship-paper.toml", "--results", tmp_path / "r", "--dry-run", "--json")
    assert outcome.code == 0, outcome.err
    document = json.loads(outcome.out)
    assert "pass --data" in document["unread"]
    assert document["waiting"] == 285
    assert {run["estimated_seconds"] for run in document["runs"]} == {None}
    assert any(run["settings"] for run in document["runs"])
    assert document["flops_left"] > 1e18
    costs = [[part["flops_left"] for part in document[kind]] for kind in ("sections", "follow_ups")]
    assert document["flops_left"] == pytest.approx(sum(map(sum, costs)))
    assert all(cost > 0 for cost in costs[1])
    assert not (tmp_path / "r").exists()
