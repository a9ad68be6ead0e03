"""The state of a results folder: records, claims, checkpoints and plans read together."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from shipbench.engine.executors.slurm_queue import queue_of
from shipbench.errors import InputError, StoreError
from shipbench.events import DISCARD, Emitter
from shipbench.results import claims
from shipbench.results.folder_status import folder_status, trained_epochs
from shipbench.results.plans import PlanEntry, load_plans, remove_ended, write_plan
from shipbench.results.store import Store
from shipbench.runs.checkpoints import Checkpoint, _digest
from shipbench.training.history import EpochReport
from shipbench.training.snapshot import Snapshot
from tests.results.test_claims import claim_file, dead_process
from tests.results.test_foreign_records import accuracy_99, rewrite, write_foreign
from tests.results.test_store import make_record


def checkpoint(root: Path, run_id: str, epochs: int, of: int, seconds: float = 2.0) -> Path:
    """Write a checkpoint as a run does after ``epochs`` epochs of ``seconds`` each, evaluations included."""
    reports = (EpochReport(i, of, 0.5, 0.1, seconds - 0.5, 100, None, 0.5) for i in range(epochs))
    return write_reports(root, run_id, *reports)


def write_reports(root: Path, run_id: str, *reports: EpochReport) -> Path:
    path = Store(root).path("checkpoints", run_id)
    writer = Checkpoint(path, torch.device("cpu"), Emitter(run_id, DISCARD.listener), {})
    writer.offer(lambda: Snapshot({"w": torch.zeros(2)}, reports, (1, 1)), {})
    return path


def entry(run_id: str, method: str = "ship", task: str = "dtd") -> PlanEntry:
    return PlanEntry(run_id, f"{method} on {task}, seed 0", method, task, 0, 10)


@pytest.fixture
def _every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIPBENCH_CHECKPOINT_SECONDS", "0")


@pytest.mark.usefixtures("_every_epoch")
def test_every_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.write(make_record(run_id="d1"))
    store.write(make_record(run_id="e1", kind="evaluated", parent_run="d1"))
    store.write(make_record(run_id="i0", kind="imported"))
    store.write(make_record(run_id="f1", status="failed", error="CUDA out of memory\nsecond line"))
    write_plan(tmp_path, "dask", [entry("d1"), entry("a1"), entry("t1", "linear"), entry("i1")])
    claim_file(tmp_path)
    written = checkpoint(tmp_path, "a1", 3, 10).stat().st_mtime
    checkpoint(tmp_path, "i1", 4, 10)
    monkeypatch.setattr("shipbench.results.folder_status.time.time", lambda: written + 6)
    state = folder_status(tmp_path)
    assert state.done == 1
    (active,) = state.active
    assert (active.run_id, active.engine, active.pid) == ("a1", "dask", os.getpid())
    assert active.trained is not None
    assert (active.trained.epochs, active.trained.of, active.trained.seconds_per_epoch) == (3, 10, 2.0)
    assert active.seconds_left == pytest.approx(14.0 - 6)
    (failed,) = state.failed
    assert failed.error == "CUDA out of memory"
    assert [(run.run_id, run.trained and run.trained.epochs) for run in state.pending] == [("t1", None), ("i1", 4)]


def test_unsealed_records_are_named(tmp_path: Path) -> None:
    """``shipbench run`` refuses them instead of skipping their runs."""
    for run_id, columns in (("d1", {}), ("d2", {}), ("f1", {"status": "failed"}), ("e1", {"kind": "evaluated"})):
        Store(tmp_path).write(make_record(run_id=run_id, git_commit="abc", **columns))
    for run_id in ("d2", "f1", "e1"):
        rewrite(Store(tmp_path).path("runs", run_id), accuracy_99)
    write_foreign(tmp_path, run_id="x1")
    state = folder_status(tmp_path)
    assert [run.run_id for run in state.unsealed] == ["d2", "e1", "f1"]
    assert state.unsealed[0].title == "ship on dtd, seed 0"
    assert (state.done, [run.run_id for run in state.failed]) == (3, ["f1"])


@pytest.mark.usefixtures("_every_epoch")
def test_the_pace_is_that_of_the_clock_where_runs_share_the_time(tmp_path: Path) -> None:
    alone = EpochReport(0, 10, 0.5, 0.1, 1.5, 100, None, 0.5)
    path = write_reports(tmp_path, "a1", *(replace(alone, epoch=epoch, runs=4) for epoch in range(3)))
    trained = trained_epochs(path)
    assert trained is not None
    assert trained.seconds_per_epoch == 8.0


@pytest.mark.usefixtures("_every_epoch")
def test_the_pace_of_training_is_that_of_the_last_epochs(tmp_path: Path) -> None:
    """The first ones include what is compiled and recorded once."""
    reports = (EpochReport(i, 100, 0.5, 0.1, 2.0 if i > 4 else 60.0, 100, None, 0.0) for i in range(10))
    trained = trained_epochs(write_reports(tmp_path, "a1", *reports))
    assert trained is not None
    assert trained.seconds_per_epoch == 2.0


@pytest.mark.usefixtures("_every_epoch")
@pytest.mark.parametrize("finished", [10, 16, 20])
def test_the_pace_hardly_depends_on_how_long_ago_the_last_evaluation_was(tmp_path: Path, finished: int) -> None:
    reports = (EpochReport(i, 100, 0.5, 0.1, 2.0, 100, None, 0.0 if i % 10 else 30.0) for i in range(finished))
    trained = trained_epochs(write_reports(tmp_path, "a1", *reports))
    assert trained is not None
    assert trained.seconds_per_epoch == pytest.approx(2.0 + 3.0, rel=0.2)


@pytest.mark.usefixtures("_every_epoch")
def test_the_run_of_a_dead_process_is_to_do(tmp_path: Path) -> None:
    claim_file(tmp_path, pid=dead_process())
    checkpoint(tmp_path, "a1", 2, 10)
    state = folder_status(tmp_path)
    assert state.active == ()
    assert [run.run_id for run in state.pending] == ["a1"]


def test_a_failed_run_that_is_tried_again_is_under_way(tmp_path: Path) -> None:
    Store(tmp_path).write(make_record(run_id="a1", status="failed", error="x"))
    claim_file(tmp_path)
    state = folder_status(tmp_path)
    assert (len(state.active), state.failed, state.done) == (1, (), 0)
    assert state.active[0].title == "ship on dtd, seed 0"


def test_an_evaluation_that_is_computed_again_is_called_one(tmp_path: Path) -> None:
    Store(tmp_path).write(make_record(run_id="a1", kind="evaluated", parent_run="d1"))
    claim_file(tmp_path)
    assert [run.title for run in folder_status(tmp_path).active] == ["evaluation of ship on dtd, seed 0"]


def test_files_that_cannot_be_read_are_no_progress(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "a1.safetensors"
    path.parent.mkdir()
    for content in (b"", b"\xff" * 16, (5).to_bytes(8, "little") + b"{}   "):
        path.write_bytes(content)
        assert trained_epochs(path) is None
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "x.json").write_text(json.dumps({"format": "another"}))
    assert load_plans(tmp_path) == []


def test_files_that_other_systems_leave_beside_others_are_no_runs(tmp_path: Path) -> None:
    """A Mac keeps metadata of a file in another one, whose name begins with ``._``."""
    claim_file(tmp_path)
    for name in ("claims/._a1.json", "claims/._b2.json", "checkpoints/._c3.safetensors", "plans/._d4.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X")
    state = folder_status(tmp_path)
    assert [run.run_id for run in (*state.active, *state.pending)] == ["a1"]
    claims.tidy(Store(tmp_path))
    assert sorted(file.name for file in (tmp_path / "claims").iterdir()) == ["._a1.json", "._b2.json", "a1.json"]


def test_files_that_are_nested_without_an_end_are_no_progress(tmp_path: Path) -> None:
    nested = "[" * 100_000
    for name in ("plans", "claims", "slurm"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a1.json").write_text(nested)
    path = Store(tmp_path).path("checkpoints", "a1")
    path.parent.mkdir()
    tensors = {"w": torch.zeros(2)}
    path.write_bytes(save(tensors, {"content": nested, "sha256": _digest(nested, tensors)}))
    state = folder_status(tmp_path)
    assert [(run.run_id, run.trained, run.pid) for run in state.active] == [("a1", None, None)]
    assert Checkpoint(path, torch.device("cpu"), Emitter("a1", DISCARD.listener), {}).read() is None
    assert queue_of(tmp_path) == {}


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = claim_file(tmp_path, place="another machine")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(Path, "touch", refuse)
    assert list(claims.holders(tmp_path)) == ["a1"]
    os.utime(path, (1, 1))
    assert list(claims.holders(tmp_path)) == []


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no results"):
        folder_status(tmp_path)


def test_a_plan_has_one_file_and_open_permissions(tmp_path: Path) -> None:
    runs = [entry("a1"), entry("b1")]
    one, other = (write_plan(tmp_path, "local", order) for order in (runs, runs[::-1]))
    assert one == other
    assert stat.S_IMODE(one.stat().st_mode) & 0o600 == 0o600


def test_a_plan_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "plans").write_text("a file in place of the folder")
    with pytest.raises(StoreError, match=r"cannot be written to any more .* run the same command again"):
        write_plan(tmp_path, "local", [entry("a1")])


def test_a_plan_stays_until_all_its_runs_have_ended(tmp_path: Path) -> None:
    path = write_plan(tmp_path, "local", [entry("a1"), entry("b1")])
    left = []
    for run_id in ("a1", "b1"):
        Store(tmp_path).write(make_record(run_id=run_id))
        remove_ended(tmp_path)
        left.append(path.exists())
    assert left == [True, False]


@pytest.fixture
def repeated(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Plan to repeat three runs and return the plan; the parameter is the status of their records."""
    store, ids = Store(tmp_path), ("a1", "b1", "c1")
    for run_id in ids:
        store.write(make_record(run_id=run_id, status=getattr(request, "param", "done")))
    return write_plan(tmp_path, "local", [replace(entry(each), record_version=store.written(each)) for each in ids])


def write_again(root: Path, *run_ids: str) -> None:
    for run_id in run_ids:
        os.utime(Store(root).path("runs", run_id), ns=(1, 1))


def of_command(plan: Path, **identity: object) -> None:
    """Change the command that has written a plan."""
    content = json.loads(plan.read_text())
    plan.write_text(json.dumps({**content, "command": {**content["command"], **identity}}))


@pytest.mark.parametrize("repeated", ["done", "failed"], indirect=True)
def test_runs_that_a_command_repeats_are_to_do_until_they_have_new_records(tmp_path: Path, repeated: Path) -> None:
    claim_file(tmp_path)
    write_again(tmp_path, "b1")
    remove_ended(tmp_path)
    state = folder_status(tmp_path)
    assert [[run.run_id for run in runs] for runs in (state.active, state.pending)] == [["a1"], ["c1"]]
    assert state.done + len(state.failed) == 1
    write_again(tmp_path, "a1", "c1")
    remove_ended(tmp_path)
    assert not repeated.exists()


def test_nothing_continues_the_repetitions_of_a_command_that_has_ended(tmp_path: Path, repeated: Path) -> None:
    of_command(repeated, pid=dead_process())
    claim_file(tmp_path)
    state = folder_status(tmp_path)
    assert (state.pending, state.done) == ((), 2)
    remove_ended(tmp_path)
    assert not repeated.exists()


def test_repetitions_on_another_machine_are_to_do_while_a_run_of_them_is_claimed(
    tmp_path: Path, repeated: Path
) -> None:
    of_command(repeated, place="another machine")
    assert folder_status(tmp_path).pending == ()
    claim_file(tmp_path)
    assert [run.run_id for run in folder_status(tmp_path).pending] == ["b1", "c1"]
    # The run that is claimed belongs to a newer plan.
    newer = write_plan(tmp_path, "local", [entry("a1")])
    newer.write_text(json.dumps({**json.loads(newer.read_text()), "created": "2999-01-01T00:00:00+00:00"}))
    assert folder_status(tmp_path).pending == ()
    remove_ended(tmp_path)
    assert repeated.exists()


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    Store(tmp_path).write(make_record(run_id="d1"))
    code = (
        "import sys; from shipbench.results.folder_status import folder_status; "
        f"print(folder_status({str(tmp_path)!r}).done, [m for m in ('torch', 'pandas') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "1 []"


@pytest.mark.parametrize("newest", ["dask", "slurm"])
def test_a_run_of_two_plans_belongs_to_the_newest(newest: str, tmp_path: Path) -> None:
    plans = {"dask": [entry("a1")], "slurm": [entry("a1"), entry("b1")]}
    for engine, runs in plans.items():
        path = write_plan(tmp_path, engine, runs)
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "created": f"2025-03-0{1 + (engine == newest)}T12:00:00+00:00"}))
    assert {run.run_id: run.engine for run in folder_status(tmp_path).pending} == {"a1": newest, "b1": "slurm"}
