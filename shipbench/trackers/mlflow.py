"""MLflow: the run that carries the tag ``shipbench.run_id``, because MLflow chooses its ids itself."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from shipbench.errors import InputError, one_line
from shipbench.runtime.plug_ins import missing_library
from shipbench.trackers.interface import PROJECT, Outcome, TrackedRun, TrackerOptions
from shipbench.trackers.registry import require_library

RUN_ID = "shipbench.run_id"
_NOTES = "mlflow.note.content"
_LONGEST = 500
_DATABASE = "sqlite:///mlflow.db"
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SERVERS = ("http", "https", "databricks")


class MlflowTracker:
    """Sends runs to ``MLFLOW_TRACKING_URI``, into the experiment ``MLFLOW_EXPERIMENT_NAME``, or "shipbench"."""

    def __init__(self, options: TrackerOptions) -> None:
        self.uri = _uri()
        self.experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT

    @property
    def where(self) -> str:
        """The place that holds the experiment."""
        return f"experiment {self.experiment!r} at {_without_password(self.uri or _DATABASE)}"

    @staticmethod
    def why_unusable() -> str:
        """Return that MLflow or a place to write to is missing, or an empty string."""
        return missing_library("mlflow") or ("" if _uri() or _has_database() else "MLFLOW_TRACKING_URI is not set")

    def check(self) -> None:
        """Raise ``InputError`` if MLflow is not installed or cannot write to its place; no server is asked."""
        require_library("mlflow", "mlflow")
        if _scheme(self.uri or _DATABASE) in _DATABASES and not _has_database():
            raise InputError(
                "--track mlflow has no place to write to; set MLFLOW_TRACKING_URI to a server, as in "
                "http://127.0.0.1:5000, or install the package mlflow for a database in this folder"
            )
        if self.uri is None or _scheme(self.uri) not in (*_SERVERS, *_DATABASES):
            self._check_folder()

    def _check_folder(self) -> None:
        """Refuse what MLflow takes for a folder, which it no longer writes to by itself, or does not take at all."""
        from mlflow import get_tracking_uri
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        # Without an address, MLflow chooses the folder mlruns if it holds runs, else a database.
        uri = self.uri or get_tracking_uri()
        if _scheme(uri) in _DATABASES:
            return
        try:
            MlflowClient(tracking_uri=uri)
        except MlflowException as error:
            raise InputError(
                f"--track mlflow cannot write to {uri} ({one_line(error, 120)}); set MLFLOW_TRACKING_URI to a server "
                f"or a database, as in http://127.0.0.1:5000 or {_DATABASE}"
            ) from error
        self.uri = uri

    def open(self, run: TrackedRun) -> _MlflowRun:
        """Start a run that carries this id, or continue it."""
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=self.uri)
        place = _experiment(client, self.experiment)
        earlier = client.search_runs([place], f"tags.`{RUN_ID}` = '{run.run_id}'", max_results=1)
        if earlier and not run.fresh:
            client.update_run(earlier[0].info.run_id, status="RUNNING")
            return _MlflowRun(client, earlier[0].info.run_id, _last_epoch(earlier[0]))
        handle = client.create_run(place, tags={RUN_ID: run.run_id}, run_name=run.title)
        return _configured(_MlflowRun(client, handle.info.run_id), run)


def _scheme(uri: str) -> str:
    """Return the kind of an address, without the driver of a database: ``mysql`` of ``mysql+pymysql://``."""
    return uri.partition(":")[0].partition("+")[0]


def _without_password(uri: str) -> str:
    """Return an address without the user and the password that those of databases hold.

    A password may hold characters that end it in other addresses, such as ``#`` and ``/``.
    """
    return re.sub(r"^([\w.+-]+://)[^:/@]*(:[^@]*)?@", r"\1", uri)


def _experiment(client: Any, name: str) -> str:
    """Return the id of the experiment called ``name``, which is created if it does not exist."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return experiment.experiment_id
    try:
        return client.create_experiment(name)
    except MlflowException:
        # Another process may have created it in between, as in a job array.
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            raise
        return experiment.experiment_id


def _uri() -> str | None:
    return os.environ.get("MLFLOW_TRACKING_URI") or None


def _has_database() -> bool:
    """Return whether MLflow can write to a database, such as one in the working folder."""
    return find_spec("sqlalchemy") is not None


def _last_epoch(run: Any) -> int:
    """Return the last epoch that MLflow holds, 0 without one."""
    return int(run.data.metrics.get("epoch", 0))


def _configured(opened: _MlflowRun, run: TrackedRun) -> _MlflowRun:
    from mlflow.entities import Param

    params = [Param(name, str(value)[:_LONGEST]) for name, value in run.config.items()]
    opened.client.log_batch(opened.handle, params=params)
    return opened


class _MlflowRun:
    def __init__(self, client: Any, handle: str, last_epoch: int = 0) -> None:
        self.client, self.handle, self.last_epoch = client, handle, last_epoch
        self.notes: list[str] = []

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        # MLflow keeps both values of an epoch that is logged twice.
        if epoch > self.last_epoch:
            self._send({**values, "epoch": epoch}, epoch)

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.client.set_tag(self.handle, _NOTES, "\n\n".join(self.notes))

    def finish(self, outcome: Outcome) -> None:
        record = outcome.record
        self._send({f"final/{name}": value for name, value in outcome.numbers.items()}, 0)
        self.client.set_tag(self.handle, "shipbench.error", record.error)
        for file in outcome.files:
            self.client.log_artifact(self.handle, str(file), file.parent.name)
        for name, image in outcome.figures().items():
            self.client.log_image(self.handle, image, f"figures/{name}.png")
        self.client.set_terminated(self.handle, "FINISHED" if record.done else "FAILED")

    def close(self) -> None:
        self.client.set_terminated(self.handle, "KILLED")

    def _send(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self.client.log_batch(self.handle, [Metric(name, value, now, step) for name, value in values.items()])
