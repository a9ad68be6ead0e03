"""Jobs of SLURM that a command follows, waits for and cancels, with stand-ins for SLURM's commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from shipbench.engine.executors import slurm_jobs, slurm_queue
from shipbench.engine.executors.journal import JournalWriter
from shipbench.engine.executors.registry import EngineOptions
from shipbench.engine.executors.slurm import SlurmExecutor
from shipbench.errors import ShipbenchError
from shipbench.events import EpochDone, Event, Note, Started
from shipbench.planning.plan import Plan, PlannedRun
from shipbench.results import claims
from shipbench.runtime.process_identity import ProcessIdentity, current_process
from tests.engine.conftest import QUEUE, submitting, write_command

pytest.importorskip("submitit", reason="the extra shipbench[slurm] is not installed")

EPOCH = EpochDone("a", 3, 9, 1.0, 0.1, 1.0, 10)
# Processes of commands; whether each still runs.
RUNNING, ENDED, ELSEWHERE = (ProcessIdentity("login7", "", pid, "") for pid in (1, 2, 3))
IS_RUNNING = {RUNNING: True, ENDED: False, ELSEWHERE: None}


@pytest.fixture
def submit_as(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Remember jobs, by run id, as those of a command."""
    monkeypatch.setattr(slurm_queue, "is_running", IS_RUNNING.get)

    def submit(command: ProcessIdentity, **jobs: str) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(slurm_queue, "current_process", lambda: command)
            slurm_queue.remember_jobs(tmp_path / "slurm", jobs)

    return submit


def interrupt_after(monkeypatch: pytest.MonkeyPatch, *waits: Callable[[], object]) -> None:
    """Call each of ``waits`` instead of one pause between two looks at the queue, and interrupt the one after it."""
    remaining = list(waits)

    def wait(seconds: float) -> None:
        if not remaining:
            raise KeyboardInterrupt
        remaining.pop(0)()

    monkeypatch.setattr(slurm_jobs, "time", SimpleNamespace(sleep=wait))


def interrupted(executor: SlurmExecutor, runs: tuple[PlannedRun, ...], plan: Plan, results: Path) -> list[Event]:
    """Execute runs until the interruption; return the events."""
    events: list[Event] = []
    with pytest.raises(KeyboardInterrupt):
        executor.execute(runs, plan, results, events.append)
    return events


def text_of(events: list[Event]) -> str:
    """Return what the only note about the jobs says of them."""
    (text,) = (event.text for event in events if isinstance(event, Note))
    return text.partition("; see ")[0]


def test_jobs_that_begin_before_all_are_submitted_are_followed(
    runs: tuple[PlannedRun, ...], tmp_path: Path, cluster: Path
) -> None:
    write_command(cluster / "squeue", "")
    (tmp_path / "slurm").mkdir()
    JournalWriter(tmp_path / "slurm" / "a.events")(Started("a"))
    executor = submitting(
        SlurmExecutor(EngineOptions()),
        lambda folder, run_id: JournalWriter(folder / f"{run_id}.events")(Started(run_id)),
    )
    events: list[Event] = []
    executor.execute(runs, Plan(runs, runs), tmp_path, events.append)
    assert [event for event in events if not isinstance(event, Note)] == [Started("a"), Started("b")]


def test_a_job_that_never_begins_ends_no_other(runs: tuple[PlannedRun, ...], tmp_path: Path, cluster: Path) -> None:
    write_command(cluster / "squeue", "")

    def begin(folder: Path, run_id: str) -> None:
        if run_id == "a":
            JournalWriter(folder / "a.events")(Started("a"))

    events: list[Event] = []
    submitting(SlurmExecutor(EngineOptions()), begin).execute(runs, Plan(runs, runs), tmp_path, events.append)
    log = tmp_path / "slurm" / "2_0_log.err"
    assert events[-1] == Note(None, f"1 of 2 SLURM jobs ended before their work began; see {log}")


def test_a_job_that_an_earlier_command_has_left_is_followed_and_cancelled(
    runs: tuple[PlannedRun, ...],
    tmp_path: Path,
    cluster: Path,
    cancelled: Path,
    submit_as: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Run a has a job in the queue, which does not answer at first; that of b has ended."""
    submit_as(ENDED, a="12_0", b="9")
    write_command(cluster / "squeue", "exit 1")
    interrupt_after(monkeypatch, lambda: write_command(cluster / "squeue", QUEUE))
    executor = submitting(SlurmExecutor(EngineOptions()), lambda folder, run_id: None)
    events = interrupted(executor, runs, Plan(runs, runs), tmp_path)
    assert text_of(events) == (
        "following 1 job that an earlier command has left in the queue; submitted 1 job to SLURM"
    )
    assert slurm_queue.queue_of(tmp_path) == {"a": "slurm 12_0, running"}
    assert cancelled.read_text().splitlines()[0] == "12_0 1"
    # Another command that looks now waits for the job.
    monkeypatch.setattr(slurm_queue, "is_running", lambda process: process == current_process())
    monkeypatch.setattr(slurm_queue, "current_process", lambda: RUNNING)
    found = slurm_queue.jobs_in_queue(tmp_path)
    assert found is not None
    assert {run_id: job.of_another for run_id, job in found.items()} == {"a": True}


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (RUNNING, "waiting for 1 job of another command"),
        (ELSEWHERE, "following 1 job of a command on login7, which Ctrl-C here does not cancel"),
    ],
)
def test_an_interruption_leaves_the_jobs_of_a_command_that_may_still_run(
    runs: tuple[PlannedRun, ...],
    tmp_path: Path,
    cancelled: Path,
    submit_as: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    command: ProcessIdentity,
    text: str,
) -> None:
    submit_as(command, a="12_1")
    assert claims.take(tmp_path, "a") is not None
    interrupt_after(monkeypatch, lambda: JournalWriter(tmp_path / "slurm" / "a.events")(Started("a")))
    executor = submitting(SlurmExecutor(EngineOptions()), lambda folder, run_id: None)
    events = interrupted(executor, runs, Plan(runs, runs), tmp_path)
    assert text_of(events) == f"{text}; submitted 1 job to SLURM"
    # A command that still runs reports its runs itself.
    assert (Started("a") in events) == (command is ELSEWHERE)
    assert cancelled.read_text().splitlines()[0] == "1"
    assert set(claims.holders(tmp_path)) == {"a"}


@pytest.mark.usefixtures("cluster")
def test_running_jobs_of_a_killed_command_delay_new_ones_and_are_cancelled(
    runs: tuple[PlannedRun, ...],
    tmp_path: Path,
    cluster: Path,
    cancelled: Path,
    submit_as: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Run a has started before; so it is not among those to execute."""
    submit_as(ENDED, a="12_0")
    assert claims.take(tmp_path, "a") is not None
    script = tmp_path / "script"
    write_command(cluster / "sbatch", f'cp "$1" {script}; echo job 20')
    interrupt_after(monkeypatch, lambda: JournalWriter(tmp_path / "slurm" / "a.events")(EPOCH))
    events = interrupted(SlurmExecutor(EngineOptions()), runs[1:], Plan(runs, runs), tmp_path)
    assert [event for event in events if not isinstance(event, Note)] == [Started("a"), EPOCH]
    assert "#SBATCH --dependency=afterany:12" in script.read_text().splitlines()
    assert cancelled.read_text().splitlines()[0] == "12_0 20"
    assert not claims.holders(tmp_path)


@pytest.mark.parametrize(
    ("command", "first", "text"),
    [
        (ENDED, ["12_0"], "cancelled 1 held job that an earlier command has left"),
        (RUNNING, [], "not waiting for 1 held job of another command"),
        (ELSEWHERE, [], "not waiting for 1 held job of another command"),
    ],
)
def test_the_run_of_a_held_job_gets_a_new_one(
    runs: tuple[PlannedRun, ...],
    tmp_path: Path,
    cluster: Path,
    cancelled: Path,
    submit_as: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    command: ProcessIdentity,
    first: list[str],
    text: str,
) -> None:
    submit_as(command, a="12_0")
    write_command(cluster / "squeue", "echo '12_0|PENDING|JobHeldUser'; echo '1|RUNNING|None'")
    interrupt_after(monkeypatch)
    executor = submitting(SlurmExecutor(EngineOptions()), lambda folder, run_id: None)
    events = interrupted(executor, runs[:1], Plan(runs, runs[:1]), tmp_path)
    assert text_of(events) == f"{text}; submitted 1 job to SLURM"
    assert cancelled.read_text().splitlines()[:-1] == [*first, "1"]
    assert slurm_queue.queue_of(tmp_path) == {"a": "slurm 1, running"}


def test_new_jobs_do_not_wait_for_an_array_with_a_held_job(
    runs: tuple[PlannedRun, ...], tmp_path: Path, cluster: Path, submit_as: Callable[..., None]
) -> None:
    """Its run need not be one of the plan's, whose command has ended: nobody here cancels that job."""
    submit_as(ELSEWHERE, a="12_0", b="12_1", c="13")
    submit_as(ENDED, d="14_0", e="14_1")
    held = "12_0|PENDING|JobHeldAdmin\n14_0|PENDING|JobHeldUser\n"
    waiting = "12_1|RUNNING|None\n13|PENDING|Resources\n14_1|PENDING|None\n"
    write_command(cluster / "squeue", f"printf '{held}{waiting}'")
    plan = Plan(runs, (*runs, *(replace(runs[0], run_id=run_id) for run_id in "ce")))
    assert slurm_jobs.find_jobs(runs, plan, tmp_path).arrays == ["13"]
    whole = replace(plan, chosen=(*plan.chosen, replace(runs[0], run_id="d")))
    assert slurm_jobs.find_jobs(runs, whole, tmp_path).arrays == ["13", "14"]


@pytest.mark.parametrize(
    ("state", "held"),
    [
        ("pending: JobHeldUser", True),
        ("pending: JobHeldAdmin", True),
        ("pending: JobHoldMaxRequeue", True),
        ("pending: launch failed requeued held", True),
        ("requeue_hold", True),
        ("special_exit", True),
        ("pending: Resources", False),
        ("pending: QOSUsageThreshold", False),
        ("pending: JobArrayTaskLimit", False),
        ("pending: BeginTime", False),
        ("running", False),
    ],
)
def test_held_jobs_are_known_by_their_state(state: str, held: bool) -> None:
    assert slurm_queue.QueuedJob("12_0", state, ENDED, False).is_held is held


def test_jobs_of_a_queue_that_does_not_answer_are_awaited(
    runs: tuple[PlannedRun, ...], tmp_path: Path, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(("exit 1", "echo '2|RUNNING|None'", "exit 1", ""))
    asked = []

    def wait(seconds: float) -> None:
        asked.append(seconds)
        write_command(cluster / "squeue", next(answers))

    monkeypatch.setattr(slurm_jobs, "time", SimpleNamespace(sleep=wait))
    write_command(cluster / "squeue", next(answers))
    begin = submitting(SlurmExecutor(EngineOptions()), lambda folder, run_id: None)
    with pytest.raises(ShipbenchError, match=r"2 of 2 SLURM jobs ended before their work began; see .*/1_0_log\.err"):
        begin.execute(runs, Plan(runs, runs), tmp_path, lambda _: None)
    assert len(asked) == 3


def test_an_interruption_revokes_the_claims_of_active_runs_alone(
    runs: tuple[PlannedRun, ...], tmp_path: Path, cluster: Path, cancelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_command(cluster / "squeue", "printf '1|RUNNING|None\\n2|PENDING|Resources\\n'")
    for run in runs:
        assert claims.take(tmp_path, run.run_id) is not None

    def begin(folder: Path, run_id: str) -> None:
        if run_id == "a":
            JournalWriter(folder / "a.events")(Started("a"))

    interrupt_after(monkeypatch)
    interrupted(submitting(SlurmExecutor(EngineOptions()), begin), runs, Plan(runs, runs), tmp_path)
    # Run b waits in the queue, and another process may hold its claim.
    assert set(claims.holders(tmp_path)) == {"b"}
    numbers, by_name = cancelled.read_text().splitlines()
    assert (numbers, "--name=shipbench-" in by_name) == ("1 2", True)
