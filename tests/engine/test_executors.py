"""Executors: found by the name of their engine, and given the runs of a plan by the supervisor."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from shipbench import RunSpec, load_results
from shipbench.engine import stacked, supervisor
from shipbench.engine.attempt import attempt
from shipbench.engine.executors import dask, processes, registry
from shipbench.engine.executors.channel import Channel, Sender
from shipbench.engine.executors.local import LocalExecutor
from shipbench.engine.executors.portable import portable
from shipbench.engine.executors.registry import EngineOptions, get_executor, list_engines
from shipbench.engine.stacked import attempt_stack
from shipbench.engine.supervisor import execute_plan
from shipbench.errors import DeviceLostError, InputError
from shipbench.events import Event, Finished, Listener, Lost, Note, Started
from shipbench.hardware import device
from shipbench.hardware.precision import precision_elsewhere
from shipbench.planning.plan import Plan, PlannedRun, State
from shipbench.planning.stacks import Stack, Stacking
from shipbench.record import RunRecord
from shipbench.results import claims
from shipbench.results.store import Store
from shipbench.runs.session import Session
from tests.conftest import Shipbench
from tests.data.builders import vtab_tree
from tests.plug_ins import install
from tests.results.test_store import make_record

CUDA_ERROR = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later"
TINY = ("--backbone", "test_vit", "--checkpoint", "random", "--set", "image_size=64", "--epochs", "1")


class ReversedExecutor:
    """An engine of another package, which executes the runs in reverse order."""

    remote = False
    calls: list[str]

    def __init__(self, options: EngineOptions) -> None:
        self.options = options

    def check(self) -> None:
        self.calls.append("check")
        if self.options.jobs is not None:
            raise InputError("the engine 'reversed' chooses its own --jobs")

    def execute(self, runs: Sequence[PlannedRun], plan: Plan, results: Path, emit: Listener) -> None:
        assert set(runs) <= set(plan.runs)
        self.calls.append("execute")
        for run in reversed(runs):
            attempt(run, results, emit)


@pytest.fixture
def reversed_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Install the engine ``reversed`` beside the package's own; yield the calls that it gets."""
    values = {"reversed": f"{__name__}:ReversedExecutor", "broken": "no_such_module:Executor"}
    install(monkeypatch, *(EntryPoint(name, value, registry.GROUP) for name, value in values.items()))
    ReversedExecutor.calls = []
    yield ReversedExecutor.calls
    del ReversedExecutor.calls


def test_an_engine_of_another_package_executes_a_plan(
    shipbench: Shipbench, reversed_engine: list[str], tmp_path: Path, cache: Path
) -> None:
    data = vtab_tree(tmp_path / "data", tasks=("dtd",))
    line = ("run", *TINY, "--method", "linear,full", "--tasks", "dtd", "--data", data, "--results", tmp_path / "r")
    outcome = shipbench(*line, "--engine", "reversed")
    assert outcome.code == 0, outcome.err
    assert reversed_engine == ["check", "execute"]
    assert outcome.err.index("[1/2] full on dtd") < outcome.err.index("[2/2] linear on dtd")
    assert set(load_results(tmp_path / "r")["status"]) == {"done"}
    assert "0 to do, 2 done" in shipbench(*line, "--engine", "local").err


def test_the_engine_of_the_documentation_pauses_between_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/own-engine.md").read_text(encoding="utf-8")
    (code,) = re.findall(r'```python title="careful_engine.py"\n(.*?)```', page, re.DOTALL)
    module: dict[str, Any] = {}
    exec(code, module)
    done: list[object] = []
    monkeypatch.setattr("shipbench.engine.attempt.attempt", lambda run, results, emit: done.append(run.run_id))
    monkeypatch.setattr("time.sleep", done.append)
    runs = [PlannedRun(RunSpec("linear", "dtd"), run_id, State.TO_DO) for run_id in ("a1", "a2")]
    engine = module["CarefulExecutor"](EngineOptions())
    engine.check()
    engine.execute(runs, Plan(tuple(runs), tuple(runs)), tmp_path, print)
    assert done == [0, "a1", 60, "a2"]
    with pytest.raises(InputError, match="takes no --scheduler"):
        module["CarefulExecutor"](EngineOptions(scheduler="tcp://127.0.0.1:1"))


def test_an_engine_refuses_before_anything_is_planned(
    shipbench: Shipbench, reversed_engine: list[str], tmp_path: Path
) -> None:
    line = ("run", "--method", "linear", "--tasks", "demo-tiny", "--engine", "reversed", "--jobs", "2")
    outcome = shipbench(*line, "--results", tmp_path / "r")
    assert outcome.code == 2
    assert "the engine 'reversed' chooses its own --jobs" in outcome.err
    assert reversed_engine == ["check"]
    assert not (tmp_path / "r").exists()


@pytest.mark.usefixtures("reversed_engine")
def test_engines_are_found_by_name() -> None:
    assert list_engines() == ["broken", "dask", "local", "reversed", "slurm"]
    assert isinstance(get_executor("local", EngineOptions()), LocalExecutor)
    with pytest.raises(InputError, match=r"unknown engine 'lokal' \(did you mean 'local'\?\)"):
        get_executor("lokal", EngineOptions())
    with pytest.raises(InputError, match=r"engine 'broken' \(no_such_module:Executor\) cannot be imported"):
        get_executor("broken", EngineOptions())


@pytest.mark.parametrize("engine", ["local", "dask", "slurm"])
def test_engines_that_are_installed_have_a_name(engine: str) -> None:
    assert engine in list_engines()


def test_a_run_for_another_machine_has_whole_paths_and_the_planned_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = RunSpec("linear", "dtd", data=Path("data"), checkpoint="w.pth", device="cpu", precision="auto")
    sent = portable(PlannedRun(spec, "a1", State.TO_DO, fresh=True))
    assert (sent.spec.data, sent.spec.checkpoint) == (tmp_path / "data", str(tmp_path / "w.pth"))
    assert sent.spec.precision == precision_elsewhere("cpu", "auto") != "auto"
    assert replace(sent, spec=spec) == PlannedRun(spec, "a1", State.TO_DO, fresh=True)
    for name in ("random", None):
        bare = PlannedRun(replace(spec, data=None, checkpoint=name), "a1", State.TO_DO)
        assert (portable(bare).spec.data, portable(bare).spec.checkpoint) == (None, name)


def test_events_arrive_before_the_end_and_a_missing_channel_stops_no_run() -> None:
    received: list[Event] = []
    with Channel(received.append) as channel:
        senders = [Sender(channel.address) for _ in range(2)]
        for number in range(50):
            senders[number % 2](Note("a1", str(number)))
        for send in senders:
            send.close()
        # A worker of another command, and one of a command that was killed.
        Sender(replace(channel.address, key=b"another"))(Note("a1", "refused"))
    Sender(channel.address)(Note("a1", "nobody listens"))
    assert sorted(int(event.text) for event in received if isinstance(event, Note)) == list(range(50))


def test_a_channel_ends_after_a_worker_that_connects_at_the_end() -> None:
    channel = Channel(lambda event: None).__enter__()
    # The thread that accepts connections may see the end before the connection that is to wake it.
    channel.closing = True
    Sender(channel.address).close()
    channel.acceptor.join()
    end = threading.Thread(target=channel.__exit__, daemon=True)
    end.start()
    end.join(5)
    assert not end.is_alive()


def test_free_memory_limits_the_workers_unless_the_user_has_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipbench.engine.jobs.jobs_now", lambda runs, jobs: 1)
    run = PlannedRun(RunSpec("linear", "dtd", device="cpu"), "a1", State.TO_DO)
    events: list[Event] = []
    workers = [
        LocalExecutor(EngineOptions(jobs=jobs))._workers(Plan((run,), (run,)), 4, events.append) for jobs in (None, 4)
    ]
    assert workers == [1, 4]
    assert events == [Note(None, "free memory holds 1 of 4 runs at a time")]


@dataclass
class FakeClient:
    """A client of a Dask cluster: the threads of each worker, and the handler of each topic."""

    threads: dict[str, int]
    topics: dict[str, Callable[[object], None]] = field(default_factory=dict)

    def nthreads(self) -> dict[str, int]:
        return self.threads

    def subscribe_topic(self, name: str, handler: Callable[[object], None]) -> None:
        self.topics[name] = handler


def test_a_dask_worker_of_several_threads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    client = FakeClient({"tcp://a:1": 1, "tcp://b:2": 2})
    monkeypatch.setattr(dask, "_connected", lambda address: nullcontext(client))
    executor = get_executor("dask", EngineOptions(scheduler="tcp://127.0.0.1:1"))
    with pytest.raises(InputError, match="Dask worker tcp://b:2 has 2 threads; start workers with --nthreads 1"):
        executor.check()
    client.threads["tcp://b:2"] = 1
    executor.check()


def test_a_dask_scheduler_that_answers_too_late_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(distributed, "Client", Mock(side_effect=distributed.TimeoutError))
    with pytest.raises(InputError, match="no Dask scheduler answers at "):
        get_executor("dask", EngineOptions(scheduler="tcp://127.0.0.1:1")).check()


def test_an_interrupted_cluster_revokes_the_claims_of_active_runs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    client, received = FakeClient({"tcp://a:1": 1}), list[Event]()
    runs = tuple(PlannedRun(RunSpec("linear", "dtd", precision="fp32"), name, State.TO_DO) for name in "abcd")
    for run in runs:
        assert claims.take(tmp_path, run.run_id) is not None
    ended = Finished("b", make_record(run_id="b"))
    events = (Started("a"), Started("b"), ended, Started("c"), Lost("c"), Note(None, "a machine"))

    def interrupt(*_: object, **__: object) -> Callable[[object], None]:
        (send,) = (handler for topic, handler in client.topics.items() if topic != "all")
        for event in events:
            send((None, pickle.dumps(event)))
        raise KeyboardInterrupt

    monkeypatch.setattr(dask, "_connected", lambda address: nullcontext(client))
    monkeypatch.setattr(dask, "_backend", lambda client: "threading")
    monkeypatch.setattr(dask, "Parallel", interrupt)
    executor = get_executor("dask", EngineOptions(scheduler="tcp://127.0.0.1:1"))
    with pytest.raises(KeyboardInterrupt):
        executor.execute(runs, Plan(runs, runs), tmp_path, received.append)
    assert [(type(event), event.run_id) for event in received] == [(type(event), event.run_id) for event in events]
    # Another process may hold those of runs that this one does not execute.
    assert set(claims.holders(tmp_path)) == {"b", "c", "d"}


def test_a_run_keeps_the_planned_precision_on_another_gpu() -> None:
    run = PlannedRun(RunSpec("linear", "dtd"), "a1", State.TO_DO, precision="bf16")
    (there,) = processes._on("cuda:1", (run,))
    assert (there.spec.device, there.spec.precision, there.run_id) == ("cuda:1", "bf16", "a1")


def test_a_worker_that_leaves_the_cluster_ends_no_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    runs = (PlannedRun(RunSpec("linear", "dtd", precision="fp32"), "a", State.TO_DO),)

    def leave(*_: object) -> None:
        raise distributed.Reschedule

    monkeypatch.setattr(dask, "_connected", lambda address: nullcontext(FakeClient({"tcp://a:1": 1})))
    monkeypatch.setattr(dask, "_backend", lambda client: "threading")
    monkeypatch.setattr(dask, "_on_worker", leave)
    events: list[Event] = []
    executor = get_executor("dask", EngineOptions(scheduler="tcp://127.0.0.1:1"))
    executor.execute(runs, Plan(runs, runs), tmp_path, events.append)
    assert "a worker of the cluster has left" in str(events[-1])


def test_dask_refuses_a_number_of_stacked_runs() -> None:
    options = EngineOptions(stacking=Stacking(3), scheduler="tcp://127.0.0.1:1")
    with pytest.raises(InputError, match="--stack N and --engine dask cannot be combined"):
        get_executor("dask", options)


def test_a_local_dry_run_imports_no_dask(tmp_path: Path) -> None:
    line = ["run", "--method", "linear", "--tasks", "demo-tiny", "--device", "cpu", "--precision", "fp32", "--dry-run"]
    code = (
        "import sys; from shipbench.cli import main\n"
        f"sys.argv = ['shipbench', *{line}, '--results', {str(tmp_path / 'r')!r}]\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "print({'dask', 'distributed', 'joblib', 'torch'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "set()"


def test_a_plan_beside_another_process_notes_its_claim_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = PlannedRun(RunSpec("linear", "dtd"), "a1", State.TO_DO)
    claim = claims.take(tmp_path, "a1")
    assert claim is not None
    polls, events = list[float](), list[Event]()

    def poll(seconds: float) -> None:
        polls.append(seconds)
        if len(polls) == 2:
            Store(tmp_path).write(make_record(run_id="a1"))

    monkeypatch.setattr(supervisor.time, "sleep", poll)
    executor = get_executor("local", EngineOptions(jobs=1))
    (record,) = execute_plan(Plan((run,), (run,)), tmp_path, executor, events.append)
    assert record.done
    note, end = events
    assert isinstance(note, Note)
    assert note.run_id is None
    assert note.text.endswith("is executing a run; waiting")
    assert isinstance(end, Finished)
    assert end.run_id == "a1"


class DoneWorker:
    """A worker process that has done a stack at once."""

    def submit(self, stack: Stack) -> Future[None]:
        future = Future[None]()
        future.set_result(None)
        return future


def test_workers_are_waited_for_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, Ctrl-C interrupts no waiting; it takes effect once the waiting ends."""
    limits: list[float | None] = []

    def wait_in_vain_first(
        futures: Iterable[Future[None]], timeout: float | None = None, return_when: str = ""
    ) -> SimpleNamespace:
        limits.append(timeout)
        return SimpleNamespace(done=set(futures) if len(limits) > 1 else set())

    monkeypatch.setattr(processes, "wait", wait_in_vain_first)
    run = PlannedRun(RunSpec("linear", "dtd"), "a1", State.TO_DO)
    processes._distribute([Stack((run,), (run,))], [DoneWorker()], lambda event: None)  # type: ignore[list-item]
    assert len(limits) == 2
    assert all(limit is not None and limit <= 1 for limit in limits)


class DyingExecutor:
    """An engine whose first process dies after it has left a checkpoint; the next one finishes the runs."""

    remote = True

    def __init__(self, store: Store) -> None:
        self.store = store
        self.found: list[bool] = []

    def check(self) -> None: ...

    def execute(self, runs: Sequence[PlannedRun], plan: Plan, results: Path, emit: Listener) -> None:
        assert set(runs) <= set(plan.runs)
        for run in runs:
            checkpoint = self.store.path("checkpoints", run.run_id)
            self.found.append(checkpoint.exists())
            checkpoint.write_bytes(b"epoch 3")
            if len(self.found) > 1:
                self.store.write(make_record(run_id=run.run_id))


def test_a_run_that_starts_afresh_resumes_after_a_death(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_POLL_SECONDS", 0)
    store = Store(tmp_path)
    store.path("checkpoints", "a1").parent.mkdir()
    store.path("checkpoints", "a1").write_bytes(b"of an earlier plan")
    run = PlannedRun(RunSpec("linear", "dtd"), "a1", State.TO_DO, fresh=True)
    executor = DyingExecutor(store)
    execute_plan(Plan((run,), (run,)), tmp_path, executor, lambda event: None)
    assert executor.found == [False, True]


class StoppedExecutor:
    """An engine that is interrupted after its runs have stored checkpoints."""

    def __init__(self, store: Store, *, remote: bool) -> None:
        self.store, self.remote = store, remote

    def check(self) -> None: ...

    def execute(self, runs: Sequence[PlannedRun], plan: Plan, results: Path, emit: Listener) -> None:
        for run in runs:
            self.store.path("checkpoints", run.run_id).write_bytes(b"epoch 3")
        raise KeyboardInterrupt


@pytest.mark.parametrize(("remote", "left"), [(False, {"b2"}), (True, {"a1", "b2"})])
def test_a_stopped_repetition_of_a_done_run_leaves_no_checkpoint(tmp_path: Path, remote: bool, left: set[str]) -> None:
    """The run is done as before; of one that is not, the next command continues.

    On a cluster, a job of another command may be about to resume from it.
    """
    store = Store(tmp_path)
    store.write(make_record(run_id="a1"))
    store.path("checkpoints", "a1").parent.mkdir()
    os.utime(store.path("runs", "a1"), ns=(10**18, 10**18))
    runs = tuple(PlannedRun(RunSpec("linear", "dtd"), name, State.TO_DO, fresh=True) for name in ("a1", "b2"))
    with pytest.raises(KeyboardInterrupt):
        execute_plan(Plan(runs, runs), tmp_path, StoppedExecutor(store, remote=remote), lambda event: None)
    assert {path.stem for path in (tmp_path / "checkpoints").iterdir()} == left


@dataclass
class FakeGpu:
    """A GPU that fails run b, and everything else once it is broken; run b breaks it or not."""

    breaks: bool = True
    broken: bool = False
    attempted: list[str] = field(default_factory=list)

    def probe(self, name: str) -> None:
        """Fail if the GPU is broken."""
        if self.broken:
            raise RuntimeError(CUDA_ERROR)

    def fail(self, *_: object) -> None:
        """Fail, and break if that is what the GPU does."""
        self.broken = self.breaks
        raise RuntimeError(CUDA_ERROR)

    def prepare(self, run: PlannedRun) -> PlannedRun:
        """Return the run instead of what prepares it."""
        self.attempted.append(run.run_id)
        if run.run_id == "b":
            self.fail()
        self.probe(run.spec.device)
        return run


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """A GPU on which runs end without training."""

    def execute(session: Session, run: PlannedRun) -> RunRecord:
        record = make_record(run_id=run.run_id)
        session.store.write(record)
        return record

    fake = FakeGpu()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(device, "_probe", fake.probe)
    monkeypatch.setattr("shipbench.engine.attempt.prepare_planned", fake.prepare)
    monkeypatch.setattr(Session, "execute", execute)
    return fake


@pytest.fixture
def runs_on_a_gpu(tmp_path: Path) -> tuple[PlannedRun, ...]:
    """Runs a, b and c; b has a checkpoint."""
    checkpoint = Store(tmp_path).path("checkpoints", "b")
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"epoch 3")
    return tuple(PlannedRun(RunSpec("linear", "dtd", device="cuda:0"), name, State.TO_DO) for name in "abc")


def test_a_lost_gpu_ends_a_plan_and_fails_no_run(
    gpu: FakeGpu, runs_on_a_gpu: tuple[PlannedRun, ...], tmp_path: Path
) -> None:
    executor, events, store = get_executor("local", EngineOptions(jobs=1)), list[Event](), Store(tmp_path)
    sentence = (
        r"^device cuda:0 of \S+ does not work \(CUDA error: an illegal memory access was encountered\); finished runs "
        r".* are kept in .*, and the same command continues from there once the device works$"
    )
    with pytest.raises(DeviceLostError, match=sentence) as caught:
        execute_plan(Plan(runs_on_a_gpu, runs_on_a_gpu), tmp_path, executor, events.append)
    assert caught.value.exit_code == 1
    assert gpu.attempted == ["a", "b"]
    assert [store.status(name) for name in "abc"] == ["done", None, None]
    assert store.path("checkpoints", "b").read_bytes() == b"epoch 3"
    assert not claims.holders(tmp_path)
    assert [event.run_id for event in events if isinstance(event, Note)] == ["b"]


def test_a_gpu_that_is_lost_during_a_repetition_leaves_nothing_to_continue(
    gpu: FakeGpu, runs_on_a_gpu: tuple[PlannedRun, ...], tmp_path: Path
) -> None:
    runs = tuple(replace(run, fresh=True) for run in runs_on_a_gpu)
    executor = get_executor("local", EngineOptions(jobs=1))
    with pytest.raises(
        DeviceLostError, match=r"kept in .*; without --force the same command executes only the others$"
    ):
        execute_plan(Plan(runs, runs), tmp_path, executor, lambda event: None)


def test_a_run_that_fails_on_a_gpu_that_works_stops_no_other(
    gpu: FakeGpu, runs_on_a_gpu: tuple[PlannedRun, ...], tmp_path: Path
) -> None:
    gpu.breaks = False
    executor = get_executor("local", EngineOptions(jobs=1))
    records = execute_plan(Plan(runs_on_a_gpu, runs_on_a_gpu), tmp_path, executor, lambda event: None)
    assert [record.status for record in records] == ["done", "failed", "done"]
    assert not Store(tmp_path).path("checkpoints", "b").exists()


@pytest.mark.parametrize("breaks", [True, False])
def test_a_stack_on_a_lost_gpu_is_not_executed_run_by_run(
    gpu: FakeGpu,
    runs_on_a_gpu: tuple[PlannedRun, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    breaks: bool,
) -> None:
    gpu.breaks = breaks
    monkeypatch.setattr(stacked, "_execute", gpu.fail)
    events = list[Event]()
    with pytest.raises(DeviceLostError) if breaks else nullcontext():
        attempt_stack(Stack(runs_on_a_gpu, runs_on_a_gpu), tmp_path, events.append)
    assert gpu.attempted == ([] if breaks else ["a", "b", "c"])
    assert not claims.holders(tmp_path)
    (note,) = (event.text for event in events if isinstance(event, Note))
    assert note.startswith("device cuda:0" if breaks else "3 runs could not be trained together")
