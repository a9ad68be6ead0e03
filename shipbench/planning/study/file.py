"""Study files: runs, ablations, tunings, what follows them, and reports in TOML, read into typed parts."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from annotated_types import Ge

from shipbench.errors import InputError, check_all, did_you_mean
from shipbench.methods import parse_methods
from shipbench.runtime.files import read_toml
from shipbench.settings import comma_list, configure, field_names, flat_table, option_text, refuse_unknown


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """The keys that every part of a study has; ``[study]`` gives their values for all parts.

    They mean what the options of the same names mean. ``set`` holds settings by name, ``METHOD.KEY`` for one method.
    """

    tasks: str = ""
    seeds: str = "0"
    shots: str | None = None
    recipe: Literal["default", "published"] = "default"
    backbone: str | None = None
    checkpoint: str | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    epochs: Annotated[int, Ge(1)] | None = None
    set: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Part(Defaults, ABC):
    """A part of a study: the runs of one command. ``name`` identifies it on the command line."""

    kind: ClassVar[str]
    name: str = ""

    @property
    @abstractmethod
    def method_text(self) -> str:
        """The methods of this part, comma-separated."""


@dataclass(frozen=True, kw_only=True)
class RunPart(Part):
    """``[[run]]``: methods on tasks, as ``shipbench run``.

    ``methods`` may contain patterns such as ``peft-*``. ``exclude`` names methods, or patterns, to leave out.
    """

    kind: ClassVar[str] = "run"
    methods: str = ""
    exclude: str = ""

    @property
    def method_text(self) -> str:
        """The methods of this part, comma-separated; raises ``InputError`` as ``parse_methods``."""
        named = parse_methods(self.methods, self.exclude) if comma_list(self.methods) else []
        return ",".join(method.name for method in named)


@dataclass(frozen=True, kw_only=True)
class AblatePart(Part):
    """``[[ablate]]``: switches and sweeps of one method, as ``shipbench ablate``; ``sweep`` holds values by setting."""

    kind: ClassVar[str] = "ablate"
    method: str = "ship"
    switches: str | None = None
    mode: Literal["leave-one-out", "add-one-in", "all"] = "leave-one-out"
    sweep: Mapping[str, Any] = field(default_factory=dict)
    product: bool = False

    @property
    def method_text(self) -> str:
        """The method that is ablated."""
        return self.method


@dataclass(frozen=True, kw_only=True)
class TunePart(Part):
    """``[[tune]]``: settings chosen on validation images, as ``shipbench tune``.

    ``grid`` names grids of the methods; ``axes`` holds the values to try by setting.
    """

    kind: ClassVar[str] = "tune"
    methods: str = ""
    grid: str = ""
    axes: Mapping[str, Any] = field(default_factory=dict)
    tuning_seeds: str | None = None
    common: bool = False
    choose_only: bool = False

    @property
    def method_text(self) -> str:
        """The methods of this part, comma-separated."""
        return self.methods


@dataclass(frozen=True, kw_only=True)
class FollowUp(ABC):
    """A part that trains nothing: it reads the finished runs of the parts named in ``of``.

    ``methods``, ``tasks`` and ``seeds`` choose among these runs; an empty one keeps all.
    """

    kind: ClassVar[str]
    noun: ClassVar[str]
    name: str = ""
    of: str = ""
    methods: str = ""
    tasks: str = ""
    seeds: str = ""

    @property
    def sources(self) -> list[str]:
        """The names of the parts whose runs are read."""
        return comma_list(self.of)


@dataclass(frozen=True, kw_only=True)
class EvaluatePart(FollowUp):
    """``[[evaluate]]``: runs scored on other images or on corrupted ones, as ``shipbench evaluate``."""

    kind: ClassVar[str] = "evaluate"
    noun: ClassVar[str] = "evaluations"
    on: str | None = None
    corrupt: str | None = None
    severity: str | None = None


@dataclass(frozen=True, kw_only=True)
class ExplainPart(FollowUp):
    """``[[explain]]``: the final features of runs, stored as by ``shipbench explain RUN --features``."""

    kind: ClassVar[str] = "explain"
    noun: ClassVar[str] = "features"


@dataclass(frozen=True, kw_only=True)
class ReportPart:
    """``[[report]]``: a report of all records in the results folder, as ``shipbench report``."""

    output: str = ""
    select: str = "final"
    format: str = "md,tex,csv,html,svg"
    baseline: str | None = None
    published: str = "default"
    imported: str = "beside"
    style: str = "plain"
    title: str = "Benchmark report"


@dataclass(frozen=True)
class Study:
    """A study: its file, the folder of its records, its parts and its reports in order, and the file's content.

    ``parts`` have runs; ``follow_ups`` read them.
    """

    file: Path
    results: Path | None
    parts: tuple[Part, ...]
    reports: tuple[ReportPart, ...]
    content: Mapping[str, Any]
    follow_ups: tuple[FollowUp, ...] = ()


_PARTS: Mapping[str, type[Part]] = {part.kind: part for part in (RunPart, AblatePart, TunePart)}
_FOLLOW_UPS: Mapping[str, type[FollowUp]] = {part.kind: part for part in (EvaluatePart, ExplainPart)}
Keys = TypeVar("Keys")
# An option of a message, but not one of a command that it quotes.
_OPTION = re.compile(r"'shipbench [^']*'|(?<![\w-])--([a-z][a-z-]*)")
_KEYS: Mapping[str, str] = {
    **{
        key.replace("_", "-"): key
        for kind in (*_PARTS.values(), *_FOLLOW_UPS.values(), ReportPart)
        for key in field_names(kind)
    },
    "switch": "switches",
}
"""The keys of a study file, by the names of the options that mean the same on a command line."""


def read_study(file: Path) -> Study:
    """Return the study in a file; raise ``InputError`` for an unknown key, a value that does not fit, or no part."""
    content = read_toml(file, "study file")
    _refuse_unknown_sections(content, file)
    common = dict(_table(content.get("study", {}), f"[study] of {file}"))
    with located(f"[study] of {file}"):
        refuse_unknown(common, [*field_names(Defaults), "results"], "this table")
    results = common.pop("results", None)
    if results is not None and not isinstance(results, str):
        raise InputError(f"[study] of {file}: results is {results!r}; it must be the path of a folder")
    _read_keys(Defaults, common, f"[study] of {file}")
    kinds = [section for section in content if section in _PARTS]
    tables = ((kind, *numbered) for kind in kinds for numbered in _numbered(content, kind, file))
    parts = check_all(partial(_part, kind, i, table, common, file) for kind, i, table in tables)
    if not parts:
        raise InputError(f"{file} has no runs; add a part: [[run]], [[ablate]] or [[tune]]")
    reports = tuple(_report(table, f"[[report]] of {file}") for _, table in _numbered(content, "report", file))
    follow_ups = [
        _follow_up(kind, i, table, [part.name for part in parts], file)
        for kind in content
        if kind in _FOLLOW_UPS
        for i, table in _numbered(content, kind, file)
    ]
    _refuse_repeated([part.name for part in parts] + [part.name for part in follow_ups], "parts called", file)
    _refuse_repeated([os.path.normpath(report.output) for report in reports], "reports with the output", file)
    return Study(file, None if results is None else Path(results), tuple(parts), reports, content, tuple(follow_ups))


def choose_parts(study: Study, names: str | None) -> Study:
    """Return the study with only the parts in a comma list of names; None keeps all.

    A follow-up brings the parts whose runs it reads. Raises ``InputError`` for an unknown name.
    """
    if names is None:
        return study
    wanted = comma_list(names)
    if not wanted:
        raise InputError(f"--only is empty; name parts of {study.file}")
    known = [part.name for part in study.parts] + [part.name for part in study.follow_ups]
    for name in wanted:
        if name not in known:
            raise InputError(f"{study.file} has no part {name!r}{did_you_mean(name, known)}; it has {', '.join(known)}")
    follow_ups = tuple(part for part in study.follow_ups if part.name in wanted)
    wanted += [name for part in follow_ups for name in part.sources]
    return replace(study, parts=tuple(part for part in study.parts if part.name in wanted), follow_ups=follow_ups)


@contextmanager
def located(where: str) -> Iterator[None]:
    """Begin each problem of an ``InputError`` of the block with ``where``; keys of the file replace options in it."""
    try:
        yield
    except InputError as error:
        raise InputError(*(f"{where}: {_with_keys(problem)}" for problem in error.problems)) from error


def _with_keys(problem: str) -> str:
    return _OPTION.sub(lambda option: _KEYS.get(option[1], option[0]), problem)


def _refuse_unknown_sections(content: Mapping[str, Any], file: Path) -> None:
    sections = ["study", *_PARTS, *_FOLLOW_UPS, "report"]
    for name in content:
        if name not in sections:
            hint = did_you_mean(name, sections)
            raise InputError(f"unknown section {name!r} of {file}{hint}; choose from {', '.join(sections)}")


def _numbered(content: Mapping[str, Any], section: str, file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the tables of a section with their numbers from 1."""
    tables = content.get(section, [])
    if not isinstance(tables, list):
        raise InputError(f"section {section!r} of {file} is not a list of tables; write [[{section}]]")
    yield from ((i, _table(table, f"[[{section}]] of {file}")) for i, table in enumerate(tables, start=1))


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{where} is {value!r}; it must be a table of keys and values")
    return value


def _refuse_repeated(names: Sequence[str], what: str, file: Path) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{file} has two {what} {name!r}; rename one")


def _name(kind: str, number: int, table: Mapping[str, Any], file: Path) -> str:
    """Return the name of a part; raise ``InputError`` for one that no comma list of names can hold."""
    name = table.get("name", f"{kind}-{number}")
    if not isinstance(name, str) or comma_list(name) != [name]:
        raise InputError(f"[[{kind}]] number {number} of {file}: name is {name!r}; write a text without commas")
    return name


def _part(kind: str, number: int, table: Mapping[str, Any], common: Mapping[str, Any], file: Path) -> Part:
    """Return a part; ``common`` holds the values of ``[study]``, for keys that the part's table lacks."""
    name = _name(kind, number, table, file)
    where = f"part {name!r} of {file}"
    common = _without_epochs(common) if "epochs" in {*table, *_mapping(table.get("set"))} else common
    part = _read_keys(_PARTS[kind], {**common, **table, "name": name, "set": table.get("set", {})}, where)
    if not part.tasks:
        raise InputError(f'{where} has no tasks; add a line such as tasks = "all", here or in [study]')
    with located(where):
        if not part.method_text:
            raise InputError('it has no methods; add a line such as methods = ["ship", "linear"]')
        methods = [method.name for method in parse_methods(part.method_text)]
    given = {*part.set, *({"epochs"} if "epochs" in table else ())}
    inherited = {
        key: value
        for key, value in flat_table(common.get("set", {})).items()
        # A key that the part gives for every method takes the place of METHOD.KEY, too.
        if given.isdisjoint((key, key.rpartition(".")[2])) and ("." not in key or key.partition(".")[0] in methods)
    }
    return replace(part, set={**inherited, **part.set})


def _without_epochs(common: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the values of ``[study]`` without the epochs, which a part has of its own, as a key or in its ``set``."""
    others = {key: value for key, value in _mapping(common.get("set")).items() if key != "epochs"}
    return {key: value for key, value in common.items() if key not in ("epochs", "set")} | {"set": others}


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return a table, or an empty one for another value, which reading the keys refuses."""
    return value if isinstance(value, Mapping) else {}


def _follow_up(kind: str, number: int, table: Mapping[str, Any], parts: Sequence[str], file: Path) -> FollowUp:
    """Return a follow-up of some of the study's ``parts``, whose names these are."""
    name = _name(kind, number, table, file)
    where = f"part {name!r} of {file}"
    part = _read_keys(_FOLLOW_UPS[kind], {**table, "name": name}, where)
    if not part.sources:
        raise InputError(f'{where} reads no runs; name their parts, as in of = "{parts[0]}"')
    for source in part.sources:
        if source not in parts:
            hint = did_you_mean(source, parts)
            raise InputError(f"{where}: there is no part {source!r} with runs{hint}; choose from {', '.join(parts)}")
    return part


def _report(table: Mapping[str, Any], where: str) -> ReportPart:
    report = _read_keys(ReportPart, table, where)
    if not report.output:
        raise InputError(f'{where} has no output; add a line such as output = "reports/paper"')
    return report


def _read_keys(keys: type[Keys], table: Mapping[str, Any], where: str) -> Keys:
    """Return ``keys`` with the values of a table: lists become comma-separated texts, nested tables dotted keys."""
    with located(where):
        refuse_unknown(table, field_names(keys), "this table")
        tables = [spec.name for spec in fields(keys) if spec.default_factory is not MISSING]  # type: ignore[arg-type]
        for name in tables:
            _table(table.get(name, {}), name)
        values = {key: flat_table(value) if key in tables else _as_option(value) for key, value in table.items()}
        return configure(keys, values)


def _as_option(value: Any) -> Any:
    """Return a value of TOML as the text that an option of the command line would hold; truth values stay."""
    return option_text(value) if isinstance(value, (list, int, float)) and not isinstance(value, bool) else value
