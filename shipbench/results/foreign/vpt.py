"""KMnP/vpt and its forks: ``logs.txt`` with a test evaluation after every epoch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shipbench.results.foreign.result import (
    LAST_COUNTS,
    Evaluation,
    ForeignResult,
    Harness,
    Naming,
    Reading,
    Skipped,
    ends_early,
    in_sequence,
    scores_of,
    unfinished,
)
from shipbench.results.foreign.tasks import task_and_suite
from shipbench.results.foreign.text import number, percent, read_text, whole

_NEW_JOB = "Rank of current process:"
# The harness writes two decimals and then the next metric: a line without both was cut off.
_SCORE = re.compile(r"Classification results with (val|test)_(.*): top1:\s*(\d+\.\d\d(?!\d)|\S+(?=\s))")
_PARAMETERS = re.compile(r"Gradient Parameters:\s*(\d+)(?![\d.,])")
# Within an epoch, lines such as "Training 100/169. train loss: 1.2" count batches.
_EPOCH = re.compile(r"(?:Training|Epoch) +(\d+) */ *(\d+)(?: epoch|:)")
_FOLDER = re.compile(r"lr([\d.e+-]+)_wd([\d.e+-]+)")
_FGVC = ("cub", "nabirds", "oxfordflowers", "oxfordflower", "stanforddogs", "stanfordcars")
# The seeds of run1 to run5 that tune_vtab.py gives to the final runs.
_FINAL_SEEDS = (42, 44, 82, 100, 800)
_PLAIN_OPTIONS = {
    "LOCATION": "prepend",
    "VIT_POOL_TYPE": "original",
    "INITIATION": "random",
    "NUM_DEEP_LAYERS": "None",
    "REVERSE_DEEP": "False",
    "DEEP_SHARED": "False",
    "FORWARD_DEEP_NOEXPAND": "False",
}
# A setting of a block: a text, a number or a switch.
_ITEM = re.compile(r"'(\w+)':\s*('[^']*'|[\w.+-]+)\s*(?=[,)}]|$)")
_OFF = ("None", "False", "''", "0.0", "-1")
_ON_OFF = {"REVERSE_DEEP": "reversed", "DEEP_SHARED": "shared", "FORWARD_DEEP_NOEXPAND": "noexpand"}


def _read(path: Path, naming: Naming) -> Iterator[Reading]:
    job, further = _first_job(read_text(path))
    scores = list(_scores(job))
    val, tests = _evaluations("val", scores), _evaluations("test", scores)
    names = list(dict.fromkeys(score.name for score in scores if score.split == "test"))
    if not tests or len(names) > 1:
        why = _without_test(val) if not tests else f"it scores several test sets: {' and '.join(names[:2])}"
        yield Skipped(path, "; ".join(filter(None, [why, further])))
        return
    total = _total_epochs(job)
    why_short = _why_unfinished(job, scores, ends_early(tests, total))
    if why_short is not None:
        yield unfinished(path, tests, total, why_short or further)
        return
    (name,) = names
    task, suite = _task(name)
    config, counted = _Config(job), _PARAMETERS.search(job)
    yield ForeignResult(
        path,
        naming.method or _method(config),
        task,
        suite,
        seed=_seed(config, path),
        parameters=number(counted[1]) if counted else None,
        with_head=True,
        classes=whole(config.get("NUMBER_CLASSES")),
        other_head=_has_other_head(config),
        settings=_settings(config, path),
        note="; ".join(filter(None, [_base_rate(config), _share(config), further, "" if total else LAST_COUNTS])),
        **(scores_of(tests) | {"history": (*_legitimate(name, val), *tests)}),
    )


@dataclass(frozen=True)
class _Score:
    """The top-1 on a data set after an epoch, counted from 0; None if it is no number."""

    split: str
    name: str
    epoch: int
    accuracy: float | None


def _first_job(text: str) -> tuple[str, str]:
    """Return the first job in a log that scored anything, as the authors read it, and a note on those after it.

    The file is appended to, and a job that failed before its first evaluation says nothing.
    """
    jobs = text.split(_NEW_JOB)
    scored = [i for i, job in enumerate(jobs) if _SCORE.search(job)]
    first = scored[0] if scored else min(1, len(jobs) - 1)
    further = "the file holds further jobs, which are not read" if jobs[first + 1 :] else ""
    return jobs[first], further


def _scores(job: str) -> Iterator[_Score]:
    """Yield the scores of a job, each after the epoch that the lines above it name; without such a line, in order."""
    epoch: int | None = None
    seen: Counter[str] = Counter()
    for line in job.splitlines():
        if stated := _EPOCH.search(line):
            epoch = int(stated[1]) - 1
        elif score := _SCORE.search(line):
            yield _Score(score[1], score[2], seen[score[1]] if epoch is None else epoch, percent(score[3], "top1"))
            seen[score[1]] += 1


def _why_unfinished(job: str, scores: Sequence[_Score], is_short: bool) -> str | None:
    """Return why a job ended before its last epoch, empty if it does not say so; None for a finished job."""
    last = [score for score in scores if score.split == "test"][-1]
    if last.accuracy is None:
        return f"after epoch {last.epoch + 1} the accuracy is not a number"
    if not is_short or "No improvement. Breaking out of loop." in job:
        return None
    nan = "encountered nan loss" in job or "encountered infinite" in job or "infinite loss" in job
    return "a loss that is not finite ended training" if nan else ""


class _Config:
    """The settings in a log, whose dump is Python or YACS text; looked up by name, as texts."""

    def __init__(self, job: str) -> None:
        self._job = job

    def get(self, name: str) -> str | None:
        """Return the value of the first setting called ``name`` in the dump, else in the command line."""
        pattern = rf"'{name}':\s*'?([^',}}\)\n]*)'?"
        found = re.search(pattern, self._job) or re.search(rf"'[A-Z.]*\.?{name}', '([^']*)'", self._job)
        return found[1].strip() if found else None

    def block(self, name: str) -> dict[str, Any]:
        """Return the settings in the block of the dump called ``name`` (ignoring case), without those that are off.

        The block of a TRANSFER_TYPE holds what tells the runs of a fork's method, or of an adapter, apart.
        """
        found = re.search(rf"'{re.escape(name)}':\s*(?:CfgNode\()?\{{([^{{}}]*)", self._job, re.IGNORECASE)
        values = _ITEM.findall(found[1]) if found else []
        return {key.lower(): _literal(value) for key, value in values if value not in _OFF}


def _literal(text: str) -> Any:
    """Return a text, a number or a switch of a dump."""
    if text.startswith("'"):
        return text.strip("'")
    return whole(text) if whole(text) is not None else number(text) if number(text) is not None else text == "True"


def _without_test(validation: Sequence[Evaluation]) -> str:
    if not validation:
        return "no line with the top1 of val or test: the run ended before its first evaluation, or logs other scores"
    last = 100 * validation[-1].accuracy
    return f"tuning run (no test line): its last val top1, {last:.2f} %, is a val200 accuracy"


def _evaluations(split: Literal["val", "test"], scores: Sequence[_Score]) -> list[Evaluation]:
    return in_sequence(((score.epoch, score.accuracy) for score in scores if score.split == split), split)


def _legitimate(name: str, validation: Sequence[Evaluation]) -> Sequence[Evaluation]:
    """Return the validation scores, unless val200 was trained on: then they say nothing about an epoch."""
    return [] if name.lower().startswith("vtab") else validation


def _total_epochs(job: str) -> int | None:
    total = whole(_Config(job).get("TOTAL_EPOCH"))
    stated = _EPOCH.search(job)
    return total if total is not None else int(stated[2]) if stated else None


def _task(name: str) -> tuple[str, str]:
    """Return the task and the suite of a DATA.NAME."""
    task, suite = task_and_suite(name.removeprefix("vtab-")) if name.startswith("vtab-") else ("", "")
    return (task, suite) if suite else (name, "fgvc" if name.lower().replace("_", "") in _FGVC else "")


def _method(config: _Config) -> str:
    kind = config.get("TRANSFER_TYPE") or "unknown"
    if kind == "linear":
        layers = whole(config.get("MLP_NUM")) or 0
        return f"mlp-{layers + 1}" if layers else "linear"
    names = {"prompt": "vpt-deep" if config.get("DEEP") == "True" else "vpt-shallow", "end2end": "full"}
    return "-".join([names.get(kind, kind), *(_options(config) if "prompt" in kind else [])])


def _has_other_head(config: _Config) -> bool:
    """Return whether the head is an MLP, or the backbone not called ViT-B, as in ``sup_vitb16_imagenet21k``."""
    return bool(whole(config.get("MLP_NUM"))) or "vitb" not in (config.get("FEATURE") or "vitb").lower()


def _options(config: _Config) -> list[str]:
    """Return the prompt options that make the run an ablation of VPT."""
    values = {name: config.get(name) for name in _PLAIN_OPTIONS}
    changed = {name: value for name, value in values.items() if value not in (None, _PLAIN_OPTIONS[name])}
    return [
        _ON_OFF.get(name) or (f"{value}-layers" if name == "NUM_DEEP_LAYERS" else str(value))
        for name, value in changed.items()
    ]


def _seed(config: _Config, path: Path) -> int | None:
    stated = whole(config.get("SEED"))
    if stated is not None:
        return stated
    place = path.resolve()
    in_path = re.search(r"seed[_=]?(\d+)", place.as_posix())
    if in_path:
        return int(in_path[1])
    run = re.fullmatch(r"run([1-5])", place.parent.name)
    return _FINAL_SEEDS[int(run[1]) - 1] if run and "_finalfinal" in place.as_posix() else None


def _settings(config: _Config, path: Path) -> dict[str, Any]:
    folder = _FOLDER.search(path.resolve().as_posix())
    in_folder = (folder[1], folder[2]) if folder else (None, None)
    rate, decay = config.get("BASE_LR") or in_folder[0], config.get("WEIGHT_DECAY") or in_folder[1]
    settings = {"lr": number(rate), "weight_decay": number(decay), "batch_size": whole(config.get("BATCH_SIZE"))}
    kind = config.get("TRANSFER_TYPE") or ""
    of_method = _prompt_settings(config) if "prompt" in kind else {} if kind == "linear" else config.block(kind)
    return {name: value for name, value in (settings | of_method).items() if value is not None}


def _prompt_settings(config: _Config) -> dict[str, Any]:
    """Return the number of tokens, and dropout and projection unless they are off."""
    block = config.block("PROMPT")
    return {
        "num_tokens": whole(config.get("NUM_TOKENS")),
        "dropout": block.get("dropout"),
        "project": block.get("project"),
    }


def _base_rate(config: _Config) -> str:
    rate, batch = number(config.get("BASE_LR")), number(config.get("BATCH_SIZE"))
    return f"lr is scaled by batch size / 256; the base rate is {rate * 256 / batch:g}" if rate and batch else ""


def _share(config: _Config) -> str:
    """Return a note if the run trained on a share of the training images."""
    share = number(config.get("PERCENTAGE"))
    return f"trained on {100 * share:g} % of the training images" if share is not None and share < 1 else ""


def _is_candidate(path: Path) -> bool:
    return path.name == "logs.txt"


VPT = Harness("vpt", "logs.txt of KMnP/vpt", "percent", _is_candidate, _read)
