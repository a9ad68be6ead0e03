"""A run whose processes die repeatedly is recorded as failed, unless another process has it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from shipbench import RunSpec
from shipbench.engine.attempt import give_up
from shipbench.engine.supervisor import _Supervisor, execute_plan
from shipbench.errors import ShipbenchError
from shipbench.events import Emitter, EpochDone, Event, Finished, Listener, Lost, Note, Started
from shipbench.planning.plan import Plan, PlannedRun, State
from shipbench.results import claims
from shipbench.results.store import Store
from shipbench.runs.session import claimed
from tests.results.stale_lookups import hide_until_its_folder_changes
from tests.results.test_store import make_record

RUN = PlannedRun(RunSpec("linear", "demo-tiny"), "0123456789abcdef", State.TO_DO)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A results folder in which a process died while it wrote."""
    for kind in ("runs", "checkpoints"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / f".{RUN.run_id}.parquet.x1y2.part").write_bytes(b"half")
    (tmp_path / "checkpoints" / f"{RUN.run_id}.safetensors").write_bytes(b"old")
    return Store(tmp_path)


def test_a_run_that_is_given_up_leaves_a_failed_record_and_nothing_else(store: Store) -> None:
    give_up(RUN, store.root, "its process died 3 times")
    record = store.read(RUN.run_id)
    assert record is not None
    assert (record.status, record.error) == ("failed", "its process died 3 times")
    assert [path.name for path in store.root.rglob("*") if path.is_file()] == [f"{RUN.run_id}.parquet"]


def test_a_claimed_run_is_not_given_up(store: Store) -> None:
    claim = claims.take(store.root, RUN.run_id)
    assert claim is not None
    with claim:
        give_up(RUN, store.root, "its process died 3 times")
    assert store.read(RUN.run_id) is None


def test_a_record_written_meanwhile_is_kept(store: Store) -> None:
    give_up(RUN, store.root, "the first")
    give_up(RUN, store.root, "the second")
    record = store.read(RUN.run_id)
    assert record is not None
    assert record.error == "the first"


def supervisor_of(root: Path, *, remote: bool, count: int = 2) -> _Supervisor:
    """Return the supervisor of runs that have started and whose processes are gone."""
    events: list[Event] = []
    runs = [replace(RUN, run_id=str(index)) for index in range(count)]
    supervisor = _Supervisor(runs, root, events.append, remote=remote)
    for run in runs:
        supervisor.emit(Started(run.run_id))
    return supervisor


def ready(supervisor: _Supervisor) -> list[str]:
    return [run.run_id for run in supervisor._ready(supervisor.runs)]


def test_runs_that_died_beside_others_are_tried_one_at_a_time(tmp_path: Path) -> None:
    assert ready(supervisor_of(tmp_path, remote=False)) == ["0"]


def test_runs_of_a_cluster_are_tried_together_again(tmp_path: Path) -> None:
    assert ready(supervisor_of(tmp_path, remote=True)) == ["0", "1"]


@pytest.mark.parametrize(("epochs", "given_up"), [((0, 1, 2, 3), False), ((0, 0, 0, 0), True), ((), True)])
def test_a_run_that_makes_progress_each_time_is_not_given_up(
    tmp_path: Path, epochs: tuple[int, ...], given_up: bool
) -> None:
    supervisor = supervisor_of(tmp_path, remote=True, count=1)
    for deaths in range(4):
        if epochs:
            supervisor.emit(EpochDone("0", epochs[deaths], 9, 1.0, 0.1, 1.0, images=10))
        supervisor.emit(Started("0"))
    assert ready(supervisor) == ([] if given_up else ["0"])


def test_a_run_that_another_process_took_over_has_not_died(tmp_path: Path) -> None:
    supervisor = supervisor_of(tmp_path, remote=False)
    supervisor.emit(Lost("0"))
    supervisor.emit(Lost("1"))
    assert ready(supervisor) == ["0", "1"]


def test_a_run_that_has_ended_has_no_further_events(tmp_path: Path) -> None:
    """The events of a worker may arrive after the record that the supervisor has read from the store."""
    events: list[Event] = []
    supervisor = _Supervisor([RUN], tmp_path, events.append, remote=False)
    end = Finished(RUN.run_id, make_record(run_id=RUN.run_id))
    for event in (Started(RUN.run_id), end, EpochDone(RUN.run_id, 1, 2, 1.0, 0.1, 1.0, images=10), end):
        supervisor.emit(event)
    supervisor.emit(Note(None, "of no run"))
    assert events == [Started(RUN.run_id), end, Note(None, "of no run")]


class StoringExecutor:
    """An engine that executes runs whose record is the planned one, as claims decide, and stores new ones."""

    remote = False

    def check(self) -> None:
        """Accept everything."""

    def execute(self, runs: Sequence[PlannedRun], plan: Plan, results: Path, emit: Listener) -> None:
        for run in runs:
            with claimed(Store(results), run.record_version, Emitter(run.run_id, emit)) as session:
                if session is not None:
                    emit(Started(run.run_id))
                    session.store.write(make_record(run_id=run.run_id))


def test_a_run_whose_record_was_removed_meanwhile_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipbench.engine.supervisor._POLL_SECONDS", 0)
    planned = replace(RUN, state=State.FAILED, record_version=7)
    (record,) = execute_plan(Plan((planned,), (planned,)), tmp_path, StoringExecutor(), lambda event: None)
    assert (record.run_id, record.status) == (RUN.run_id, "done")


class IdleExecutor:
    """An engine that executes none of its runs, as when every worker process dies before it begins."""

    remote = False
    calls = 0

    def check(self) -> None:
        """Accept everything."""

    def execute(self, runs: Sequence[PlannedRun], plan: Plan, results: Path, emit: Listener) -> None:
        self.calls += 1
        if self.calls > 9:
            pytest.fail("the engine is called for ever")


def test_runs_that_never_start_end_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipbench.engine.supervisor._POLL_SECONDS", 0)
    engine = IdleExecutor()
    with pytest.raises(ShipbenchError, match=r"^1 run did not start in 3 attempts: "):
        execute_plan(Plan((RUN,), (RUN,)), tmp_path, engine, lambda event: None)
    assert engine.calls == 3


def test_a_run_that_a_worker_on_another_machine_stored_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipbench.engine.supervisor._POLL_SECONDS", 0)
    Store(tmp_path).write(make_record(run_id=RUN.run_id))
    hide_until_its_folder_changes(Store(tmp_path).path("runs", RUN.run_id), monkeypatch)
    engine = IdleExecutor()
    (record,) = execute_plan(Plan((RUN,), (RUN,)), tmp_path, engine, lambda event: None)
    assert (record.run_id, engine.calls) == (RUN.run_id, 1)


def test_a_run_that_starts_each_time_is_not_one_that_never_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shipbench.engine.supervisor._POLL_SECONDS", 0)
    store, calls = Store(tmp_path), list[str]()

    def execute(runs: Sequence[PlannedRun]) -> None:
        calls.extend(run.run_id for run in runs)
        supervisor.emit(Started(RUN.run_id))
        supervisor.emit(EpochDone(RUN.run_id, len(calls), 9, 1.0, 0.1, 1.0, 10))
        if len(calls) == 5:
            store.write(make_record(run_id=RUN.run_id))

    supervisor = _Supervisor([RUN], tmp_path, lambda event: None, remote=True)
    supervisor.supervise(execute)
    assert len(calls) == 5


def test_a_run_that_others_take_each_time_is_not_one_that_never_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at the end of a job array, where many commands wait for one run whose jobs reach their limit."""
    store, calls, others = Store(tmp_path), list[str](), ExitStack()
    monkeypatch.setattr("shipbench.engine.supervisor.time.sleep", lambda seconds: others.close())

    def execute(runs: Sequence[PlannedRun]) -> None:
        calls.extend(run.run_id for run in runs)
        claim = claims.take(tmp_path, RUN.run_id)
        assert claim is not None
        others.enter_context(claim)
        if len(calls) == 5:
            store.write(make_record(run_id=RUN.run_id))

    _Supervisor([RUN], tmp_path, lambda event: None, remote=True).supervise(execute)
    assert len(calls) == 5
