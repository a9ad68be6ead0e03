"""Pass the events of a plan on to trackers, each in a thread of its own, so that no run waits for any of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from queue import Full, Queue

from shipbench.errors import one_line
from shipbench.events import EpochDone, Event, Finished, Lost, Note, Started
from shipbench.runtime import exits
from shipbench.runtime.console import stdout_of_this_thread
from shipbench.trackers.interface import OpenRun, TrackedRun, Tracker
from shipbench.trackers.outcome import outcome

CAPACITY = 10_000
GRACE_SECONDS = 30.0
# What stops a command, such as the time limit of a job, soon kills it.
STOPPED_SECONDS = 5.0
SILENT_SECONDS = 2.0


class Relay:
    """A listener that passes events on to trackers within a ``with`` block.

    A tracker that raises, or that is ``CAPACITY`` events behind, receives nothing more. At the end of the block,
    trackers have ``grace`` seconds together for what is still waiting, and ``STOPPED_SECONDS`` if an exception ends the
    block. ``say`` receives one line for each tracker, where to look or why it stopped, and one if they take long.
    """

    def __init__(
        self,
        trackers: Mapping[str, Tracker],
        runs: Mapping[str, TrackedRun],
        results: Path,
        say: Callable[[str], None],
        *,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self.feeds = [_Feed(name, tracker, runs, results, say) for name, tracker in trackers.items()]
        self.grace, self.say = grace, say
        self.stdout = stdout_of_this_thread()

    def __enter__(self) -> Relay:
        """Start to pass events on; until the end of the block, standard output belongs to this thread."""
        if self.feeds:
            self.stdout.__enter__()
        for feed in self.feeds:
            feed.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for the trackers, at most ``grace`` seconds."""
        for feed in self.feeds:
            feed.put(None)
        try:
            self._wait(self.grace if kind is None else min(self.grace, STOPPED_SECONDS))
        except BaseException:
            exits.expect_hanging_threads()
            raise
        finally:
            if self.feeds:
                self.stdout.__exit__(None, None, None)

    def _wait(self, grace: float) -> None:
        start = time.monotonic()
        slow = [feed.name for feed in self.feeds if not feed.ends_before(start + min(grace, SILENT_SECONDS))]
        if slow and grace > SILENT_SECONDS:
            self.say(f"waiting for {', '.join(slow)}, at most {grace:g} s")
        for feed in self.feeds:
            feed.end(start + grace, grace)

    def __call__(self, event: Event, /) -> None:
        """Queue an event for every tracker; return at once."""
        for feed in self.feeds:
            feed.put(event)


class _Feed:
    """The queue and the thread of one tracker."""

    def __init__(
        self, name: str, tracker: Tracker, runs: Mapping[str, TrackedRun], results: Path, say: Callable[[str], None]
    ) -> None:
        self.name, self.tracker, self.runs, self.results, self.say = name, tracker, runs, results, say
        self.queue: Queue[Event | None] = Queue(CAPACITY)
        # The notes of each run that has started and is not open yet.
        self.unopened: dict[str, list[str]] = {}
        self.open: dict[str, OpenRun] = {}
        self.epochs: dict[str, int] = {}
        self.stopped = False
        self.where = ""
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self._work, name=f"tracker-{name}", daemon=True)

    def put(self, event: Event | None) -> None:
        """Queue an event, or None for the end, unless the tracker has stopped."""
        if self.stopped:
            return
        try:
            self.queue.put_nowait(event)
        except Full:
            self._stop(f"does not respond: {CAPACITY} events are waiting")

    def ends_before(self, deadline: float) -> bool:
        """Wait for the thread until ``deadline``; return whether it has ended."""
        self.thread.join(max(0.0, deadline - time.monotonic()))
        return not self.thread.is_alive()

    def end(self, deadline: float, grace: float) -> None:
        """Wait for the thread until ``deadline``; give the tracker up after that."""
        if not self.ends_before(deadline):
            self._stop(f"did not finish within {grace:g} s")
        if self.stopped:
            # Its threads and exit handlers may hang as well.
            exits.expect_hanging_threads()
        else:
            self.say(f"{self.name}: {self.where}")

    def _stop(self, reason: str) -> None:
        with self.lock:
            if self.stopped:
                return
            self.stopped = True
        self.say(f"{self.name} {reason}; nothing more is sent there, and the records in {self.results} stay complete")

    def _work(self) -> None:
        try:
            while (event := self.queue.get()) is not None and not self.stopped:
                self._pass_on(event)
            for run in self.open.values():
                run.close()
            self.where = self.tracker.where
        # Libraries also raise SystemExit.
        except BaseException as error:
            self._stop(f"failed ({one_line(error, 200)})")

    def _pass_on(self, event: Event) -> None:
        if isinstance(event, EpochDone | Finished) and event.run_id in self.unopened:
            self._open(event)
        match event:
            case Started(run_id) if run_id not in self.open:
                self.unopened.setdefault(run_id, [])
            case EpochDone(run_id) if run_id in self.open:
                self._log(event)
            case Note(str(run_id), text) if run_id in self.unopened:
                self.unopened[run_id].append(text)
            case Note(str(run_id), text) if run_id in self.open:
                self.open[run_id].note(text)
            case Finished(run_id, record) if run_id in self.open:
                self.open.pop(run_id).finish(outcome(record, self.results))
            case Lost(run_id) if run_id in self.unopened:
                del self.unopened[run_id]
            case Lost(run_id) if run_id in self.open:
                self.open.pop(run_id).close()
            case _:
                # A note about the machine, or a run that another process executes and tracks.
                pass

    def _open(self, event: EpochDone | Finished) -> None:
        """Open a run at its first epoch, which tells whether it continues from a checkpoint, or at its end."""
        run = self.runs[event.run_id]
        if isinstance(event, EpochDone) and event.epoch == 0:
            run = replace(run, fresh=True)
            self.epochs.pop(run.run_id, None)
        opened = self.open[run.run_id] = self.tracker.open(run)
        for text in self.unopened.pop(run.run_id):
            opened.note(text)

    def _log(self, event: EpochDone) -> None:
        """Log an epoch, unless it is repeated: a run whose worker died continues from its last checkpoint."""
        epoch = event.epoch + 1
        if epoch <= self.epochs.get(event.run_id, 0):
            return
        self.epochs[event.run_id] = epoch
        values = {
            "train_loss": event.train_loss,
            "learning_rate": event.learning_rate,
            "train_images_per_second": event.images / event.train_seconds,
        }
        if event.accuracy is not None:
            values[self.runs[event.run_id].accuracy_name] = event.accuracy
        self.open[event.run_id].log(epoch, values)
