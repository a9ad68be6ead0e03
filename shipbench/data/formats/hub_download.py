"""Data sets of the Hugging Face hub, downloaded and prepared by the ``datasets`` library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shipbench.data.formats.arrow_tables import ArrowTable, read_features
from shipbench.data.formats.hub_layout import HubTables, choose_config
from shipbench.errors import InputError, one_line
from shipbench.runtime.hub_output import as_silent_as_console

_CHECK = "check the name, which no folder or file here has, and the network, or name a local copy"


def download_tables(name: str, config: str | None, revision: str | None) -> HubTables:
    """Download a data set, or find it in the library's cache, and open its tables.

    Raises ``InputError`` in one sentence if the library is not installed, if the data set does not exist, needs a
    licence or a script, or cannot be reached, and if one of several configurations has to be chosen.
    """
    datasets = _library(name)
    with as_silent_as_console("huggingface_hub", "datasets"), _explained(name, datasets):
        configs = datasets.get_dataset_config_names(name, revision=revision)
        chosen = choose_config(configs, config, name)
        splits = datasets.load_dataset(name, chosen, revision=revision)
    tables = {
        split: ArrowTable([Path(file["filename"]) for file in data.cache_files]) for split, data in splits.items()
    }
    features = read_features(next(iter(splits.values())).features.to_dict())
    return HubTables(tables, features, Path.cwd())


def _library(name: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"hf:{name} is not a folder or file here, and the hub is read through the datasets library, which is not "
            "installed; pip install 'shipbench[hub]'"
        ) from error
    return datasets


@contextmanager
def _explained(name: str, datasets: Any) -> Iterator[None]:
    """Turn the library's errors into one sentence; they come from several HTTP libraries."""
    try:
        yield
    except InputError:
        raise
    except datasets.exceptions.DatasetNotFoundError as error:
        raise InputError(f"hf:{name} {_why_not_found(name, str(error))}") from error
    except Exception as error:
        raise InputError(f"hf:{name} {_why(name, one_line(error, 300))}") from error


def _why_not_found(name: str, message: str) -> str:
    # The name of a data set may hold any word.
    reason = message.replace(name, "")
    if reason.startswith("Revision "):
        return "has no such revision; check the key revision in the task file"
    if "gated" in reason or "authenticated" in reason:
        return f"needs a licence: accept it at huggingface.co/datasets/{name}, then set HF_TOKEN or run 'hf auth login'"
    return (
        "is not a folder or file here, and does not exist on the hub or is private; check the name, or set HF_TOKEN if "
        "it is yours"
    )


def _why(name: str, reason: str) -> str:
    if "script" in reason.replace(name, ""):
        return "comes as a script, which shipbench never runs; use a copy of it as Parquet files"
    return f"cannot be read from the hub: {reason.rstrip('.')}; {_CHECK}"
