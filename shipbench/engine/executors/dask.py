"""Execute runs on the workers of a Dask cluster, through joblib's backend; all workers share the results folder."""

from __future__ import annotations

import logging
import pickle
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from joblib import Parallel, delayed, parallel_config

from shipbench.engine.executors.portable import portable
from shipbench.engine.executors.registry import (
    EngineOptions,
    refuse_cluster_options,
    refuse_number_of_stacked_runs,
)
from shipbench.errors import DeviceLostError, InputError, ShipbenchError, check_all
from shipbench.events import Event, Finished, Listener, Lost, Note
from shipbench.planning.plan import Plan, PlannedRun
from shipbench.results import claims
from shipbench.runtime.plug_ins import missing_library

_TIMEOUT = "10s"
# A run seeds torch's global generators, so a worker process must execute one at a time.
_ONE_AT_A_TIME = threading.Lock()


class DaskExecutor:
    """Executes runs one by one on each worker of the cluster whose scheduler the options name."""

    remote = True

    def __init__(self, options: EngineOptions) -> None:
        checks: list[Callable[[], Any]] = [
            partial(_address_in, options),
            partial(refuse_cluster_options, "dask", options),
            partial(refuse_number_of_stacked_runs, "dask", options, "a cluster's worker executes one run at a time"),
            _distributed,
        ]
        self._address: str = check_all(checks)[0]
        self._begun = False

    @staticmethod
    def why_unusable() -> str:
        """Return that Dask is missing, or an empty string."""
        return missing_library("distributed")

    def check(self) -> None:
        """Raise ``InputError`` unless a scheduler with single-threaded workers answers."""
        with _connected(self._address) as client:
            for worker, threads in client.nthreads().items():
                if threads != 1:
                    raise InputError(f"Dask worker {worker} has {threads} threads; start workers with --nthreads 1")

    def execute(self, runs: Sequence[PlannedRun], plan: Plan, results: Path, emit: Listener) -> None:
        """Attempt every run on some worker.

        The cluster gives the run of a dead worker to another one, which resumes from its checkpoint; without any, it
        waits for a worker, at the start too. A worker whose device fails in a new process too leaves the cluster. An
        interruption revokes the claims of the active runs, whose workers then stop at their next step. Raises
        ``ShipbenchError`` if the scheduler goes away.
        """
        again, self._begun = self._begun, True
        try:
            with _connected(self._address) as client:
                _execute(client, runs, results, emit, self._address)
        except InputError as error:
            # Once runs have been executed, an address without a scheduler is no wrong input any more.
            if not again:
                raise
            raise _gone(self._address, results) from error


def _address_in(options: EngineOptions) -> str:
    if options.scheduler is None:
        raise InputError("--engine dask and --scheduler ADDRESS belong together; give both or neither")
    return options.scheduler


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise InputError(
            "--engine dask needs Dask, which is not installed; run pip install 'shipbench[dask]'"
        ) from error
    return distributed


def _execute(client: Any, runs: Sequence[PlannedRun], results: Path, emit: Listener, address: str) -> None:
    from distributed import CancelledError, Reschedule
    from distributed.scheduler import KilledWorker

    topic = f"shipbench-{secrets.token_hex(4)}"
    active: set[str] = set()

    def receive(message: tuple[Any, bytes]) -> None:
        # A scheduler and its workers execute each other's code anyway, so unpickling grants them nothing more.
        event: Event = pickle.loads(message[1])
        if isinstance(event, Finished | Lost):
            active.discard(event.run_id)
        elif event.run_id is not None:
            active.add(event.run_id)
        emit(event)

    client.subscribe_topic(topic, receive)
    client.subscribe_topic("all", _WorkerWatch(client.nthreads(), emit))
    try:
        with parallel_config(backend=_backend(client)):
            # A list, because joblib ends quietly, without a result, when a generator of tasks raises.
            Parallel(batch_size=1, pre_dispatch="all")(
                [delayed(_on_worker)(portable(run), results.resolve(), topic) for run in runs]
            )
    except Reschedule:
        # joblib hands it over as the result of a run whose worker closes in time to return one.
        emit(Note(None, "a worker of the cluster has left before its run ended; unfinished runs will be repeated"))
    except KilledWorker:
        emit(Note(None, "a run has killed several workers of the cluster; unfinished runs will be repeated"))
    except CancelledError as error:
        raise _gone(address, results) from error
    except KeyboardInterrupt:
        for run_id in tuple(active):
            claims.revoke(results, run_id)
        raise


def _gone(address: str, results: Path) -> ShipbenchError:
    return ShipbenchError(
        f"the Dask scheduler at {address} is gone; finished runs and the checkpoints of unfinished ones are kept "
        f"in {results}, and the same command continues from there once a scheduler answers"
    )


class _WorkerWatch:
    """Follows the scheduler's own events; notes that there is no worker, and when one arrives again."""

    def __init__(self, workers: Iterable[str], emit: Listener) -> None:
        self.workers = set(workers)
        self.emit = emit
        if not self.workers:
            self._note_waiting("the cluster has no worker yet; waiting for one, started with --nthreads 1")

    def __call__(self, message: tuple[Any, Any]) -> None:
        content = message[1] if isinstance(message[1], dict) else {}
        worker = str(content.get("worker"))
        if content.get("action") == "add-worker":
            if not self.workers:
                self.emit(Note(None, "a worker has joined the cluster; continuing"))
            self.workers.add(worker)
        elif content.get("action") == "remove-worker" and worker in self.workers:
            self.workers.remove(worker)
            if not self.workers:
                self._note_waiting("the cluster has no worker left; waiting for one")

    def _note_waiting(self, text: str) -> None:
        self.emit(Note(None, f"{text} (Ctrl-C stops waiting, nothing is lost)"))


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    distributed = _distributed()
    # This module reports a lost connection in one sentence; Dask would log tracebacks.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        client = distributed.Client(address, timeout=_TIMEOUT, set_as_default=False)
    # Before Python 3.11, the error of a scheduler that answers too late is no OSError.
    except (OSError, ValueError, distributed.TimeoutError) as error:
        raise InputError(f"no Dask scheduler answers at {address}; start one, as in 'dask scheduler'") from error
    with client:
        yield client


def _backend(client: Any) -> Any:
    """Return joblib's Dask backend, changed to use the workers however few there are.

    With a single worker, as while a batch system still starts the others, joblib would execute all runs in this
    process. Without any, it would give up after ten seconds.
    """
    from joblib._dask import DaskDistributedBackend

    class Backend(DaskDistributedBackend):  # type: ignore[misc]
        def effective_n_jobs(self, n_jobs: int) -> int:
            return max(2, int(super().effective_n_jobs(n_jobs)))

    return Backend(client=client, wait_for_workers_timeout=0)


def _on_worker(run: PlannedRun, results: Path, topic: str) -> None:
    from shipbench.engine.attempt import attempt, in_worker

    emit = _Sender(topic)
    with _ONE_AT_A_TIME:
        try:
            with in_worker(run.spec.device):
                attempt(run, results, emit)
        except DeviceLostError as error:
            _leave_cluster(error, emit)


def _leave_cluster(error: DeviceLostError, emit: Listener) -> NoReturn:
    """Close this worker, whose device fails in a new process too; the cluster gives its run to another one."""
    from distributed import Reschedule, get_worker

    emit(Note(None, f"{error}; continuing without it"))
    worker = get_worker()
    # With its nanny, which would start a new process on the same device.
    worker.loop.add_callback(worker.close, nanny=True, reason=str(error))
    raise Reschedule


@dataclass(frozen=True)
class _Sender:
    """A listener on a worker that sends events through the scheduler to the process that supervises the plan."""

    topic: str

    def __call__(self, event: Event, /) -> None:
        from distributed import get_worker

        # A lost event is no reason to stop the run.
        with suppress(OSError, ValueError):
            get_worker().log_event(self.topic, pickle.dumps(event))
