"""Runs on the workers of a Dask cluster, through joblib's backend; the results folder is shared by all of them."""

from __future__ import annotations

import logging
import pickle
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed, parallel_config

from shipbench.engine.attempt import attempt
from shipbench.engine.executors.channel import brief
from shipbench.errors import InputError, ShipbenchError
from shipbench.hardware.precision import precision_elsewhere
from shipbench.planning.plan import PlannedRun
from shipbench.results import claims
from shipbench.runtime.console import say
from shipbench.spec import RunSpec

Hear = Callable[[str, str, Any], None]
_TIMEOUT = "10s"
# A run seeds torch's global generators, so that a worker process does one at a time.
_ONE_AT_A_TIME = threading.Lock()


def require_cluster(address: str) -> None:
    """Raise ``InputError`` unless Dask is installed and a scheduler with fitting workers answers at ``address``."""
    with _connected(address) as client:
        for worker, threads in client.nthreads().items():
            if threads != 1:
                raise InputError(f"Dask worker {worker} has {threads} threads; start workers with --nthreads 1")


def carry_on_cluster(runs: Sequence[PlannedRun], results: Path, address: str, hear: Hear) -> None:
    """Attempt every run on some worker; ``hear(run_id, kind, content)`` gets their events.

    A run whose worker dies is given to another one, which goes on from its checkpoint; without any, the grid waits for
    one and says so. An interruption takes the runs that are under way back from their workers, which then stop at
    their next step. Raises ``ShipbenchError`` if the scheduler goes away.
    """
    from distributed import CancelledError
    from distributed.scheduler import KilledWorker

    topic = f"shipbench-{secrets.token_hex(4)}"
    busy: set[str] = set()

    def on_event(event: tuple[Any, bytes]) -> None:
        # The scheduler and its workers run code for each other anyway: this trusts them with no more than that.
        run_id, kind, content = pickle.loads(event[1])
        (busy.discard if kind in ("finished", "lost") else busy.add)(run_id)
        hear(run_id, kind, content)

    with _connected(address) as client:
        client.subscribe_topic(topic, on_event)
        client.subscribe_topic("all", _Crew(client.nthreads()))
        try:
            with parallel_config(backend=_backend(client)):
                Parallel(batch_size=1, pre_dispatch="all")(
                    delayed(_on_worker)(_shipped(run), results.resolve(), topic) for run in runs
                )
        except KilledWorker:
            say("a run has killed several workers of the cluster; what is left is tried again")
        except TimeoutError as error:
            raise InputError(f"the Dask cluster at {address} has no worker; start some, with --nthreads 1") from error
        except CancelledError as error:
            raise ShipbenchError(
                f"the Dask scheduler at {address} is gone; finished runs and the checkpoints of unfinished ones are "
                f"kept in {results}, and the same command goes on when a scheduler is back"
            ) from error
        except KeyboardInterrupt:
            for run_id in tuple(busy):
                claims.revoke(results, run_id)
            raise


class _Crew:
    """Hears the scheduler's own events and says when the last worker has gone, and when one comes again."""

    def __init__(self, workers: Iterable[str]) -> None:
        self.workers = set(workers)

    def __call__(self, event: tuple[Any, Any]) -> None:
        about = event[1] if isinstance(event[1], dict) else {}
        worker = str(about.get("worker"))
        if about.get("action") == "add-worker":
            if not self.workers:
                say("a worker has come; the grid goes on")
            self.workers.add(worker)
        elif about.get("action") == "remove-worker" and worker in self.workers:
            self.workers.remove(worker)
            if not self.workers:
                say("the cluster has no worker left; waiting for one (Ctrl-C ends the wait, nothing is lost)")


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    try:
        import distributed
    except ImportError as error:
        raise InputError("--engine dask needs Dask, which is not here: pip install 'shipbench[dask]'") from error
    # What happens to the connection is said here, in a sentence instead of a traceback.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        connect: Any = distributed.Client
        client = connect(address, timeout=_TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"no Dask scheduler answers at {address}; start one, as in 'dask scheduler'") from error
    with client:
        yield client


def _backend(client: Any) -> Any:
    """Return joblib's Dask backend, made to use the workers however few they are.

    Where a cluster has one, as while a batch system still starts the others, joblib would do all runs in this process.
    """
    from joblib._dask import DaskDistributedBackend

    class Backend(DaskDistributedBackend):  # type: ignore[misc]
        def effective_n_jobs(self, n_jobs: int) -> int:
            return max(2, int(super().effective_n_jobs(n_jobs)))

    return Backend(client=client)


def _shipped(run: PlannedRun) -> PlannedRun:
    """Return a run that means the same on another machine: absolute paths, and the precision that was planned with."""
    spec = run.spec
    precision: Any = precision_elsewhere(spec.device, spec.precision)
    return replace(run, spec=replace(spec, data=_absolute(spec.data), checkpoint=_weights(spec), precision=precision))


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.resolve()


def _weights(spec: RunSpec) -> str | None:
    checkpoint = spec.checkpoint
    return checkpoint if checkpoint in (None, "random") else str(Path(checkpoint).resolve())


def _on_worker(run: PlannedRun, results: Path, topic: str) -> None:
    with _ONE_AT_A_TIME:
        attempt(run, results, _Teller(topic, run.run_id))


@dataclass(frozen=True)
class _Teller:
    """Sends the events of a run through the scheduler to whoever watches the grid."""

    topic: str
    run_id: str

    def __call__(self, kind: str, content: Any) -> None:
        from distributed import get_worker

        # Nobody listening is no reason to stop the run.
        with suppress(OSError, ValueError):
            get_worker().log_event(self.topic, pickle.dumps((self.run_id, kind, brief(content))))
