"""ZhangYuanhan-AI/NOAH: ``log.txt`` beside ``config.yaml``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shipbench.results.foreign.json_logs import JsonLog, number_in_config_name, read_json_log, why_without_result
from shipbench.results.foreign.result import ForeignResult, Harness, Naming, Reading, Skipped, scores_of
from shipbench.results.foreign.tasks import task_and_suite
from shipbench.results.foreign.text import number, read_yaml, whole

_SWITCHES = {"is_visual_prompt_tuning": "vpt-deep", "is_adapter": "adapter", "is_LoRA": "lora"}
_SETTINGS = {"lr": number, "weight_decay": number, "batch_size": whole}


def _read(path: Path, naming: Naming) -> Iterator[Reading]:
    config = read_yaml(path.with_name("config.yaml"))
    if not config:
        yield Skipped(path, "there is no config.yaml beside it, which states method, task, seed and epochs")
        return
    log = read_json_log(path)
    method = naming.method or _method(config)
    refused = _refusal(config, method, log)
    skipped = Skipped(path, refused) if refused else why_without_result(path, log, whole(config.get("epochs")))
    if skipped is not None:
        yield skipped
        return
    parameters = number(log.rows[-1].get("n_parameters"))
    yield ForeignResult(
        path,
        method,
        *_task(str(config.get("data_set", "")), path),
        seed=whole(config.get("seed")),
        # Of a retrained subnet the log gives the count of the supernet.
        parameters=None if method == "noah" else parameters,
        parameters_as_written=parameters,
        with_head=True,
        settings=_settings(config, method),
        note="the count of parameters is that of the supernet" if method == "noah" else "",
        **scores_of(log.tests),
    )


def _method(config: Mapping[str, Any]) -> str:
    """Return the method that the switches of a configuration name; "supernet" if it is none of them."""
    named = [method for switch, method in _SWITCHES.items() if config.get(switch) is True]
    if len(named) == 1:
        return named[0]
    return "noah" if config.get("mode") == "retrain" else "supernet"


def _refusal(config: Mapping[str, Any], method: str, log: JsonLog) -> str:
    if log.is_of_ship:
        return "it is a log of SHIP's code; import it as ship"
    # NOAH's own default.
    mode = config.get("mode", "super")
    if mode not in ("super", "retrain"):
        return f"mode is {mode!r}: in the search stage the scores are val200 accuracies, never test"
    return (
        "a supernet, which is not a result: a subnet is searched and retrained from it" if method == "supernet" else ""
    )


def _task(name: str, path: Path) -> tuple[str, str]:
    """Return the task and the suite; a few-shot set is no task of VTAB-1k, even under the name of one."""
    return (f"few-shot {name}", "") if "few-shot" in path.resolve().as_posix() else task_and_suite(name)


def _settings(config: Mapping[str, Any], method: str) -> dict[str, Any]:
    settings: dict[str, Any] = {name: read(config.get(name)) for name, read in _SETTINGS.items()}
    if method == "vpt-deep":
        settings["num_tokens"] = number_in_config_name(str(config.get("cfg", "")))
    return {name: value for name, value in settings.items() if value is not None}


def _is_candidate(path: Path) -> bool:
    return path.name == "log.txt"


NOAH = Harness("noah", "log.txt of NOAH", "percent", _is_candidate, _read)
