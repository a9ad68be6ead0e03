"""Options that several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar, get_type_hints

import typer

from shipbench.cli import completion
from shipbench.cli.config_file import read_config
from shipbench.cli.documents import JSON_LINES, machine_readable, print_end
from shipbench.errors import InputError, value_of
from shipbench.runtime.interrupts import stopping
from shipbench.settings import one_of, parse_pairs

if TYPE_CHECKING:
    from shipbench.engine.executors.registry import Executor
    from shipbench.spec import RunSpec
    from shipbench.trackers.interface import Tracker

_PROGRESS = ("auto", "plain", "json")
Command: TypeAlias = Callable[..., None]
Group = TypeVar("Group")


def _number_of_jobs(text: str) -> int | None:
    """Parse a number of jobs; ``auto`` is None."""
    if text == "auto":
        return None
    if not (text.isdecimal() and int(text)):
        raise InputError(f"--jobs {text!r} is neither auto nor a whole number of at least 1")
    return int(text)


Methods = Annotated[
    str,
    typer.Option(
        help="Methods, comma-separated; all are the five main ones, zoo is every method, and peft-* is a pattern.",
        autocompletion=completion.methods,
    ),
]
Tasks = Annotated[
    str,
    typer.Option(
        help="Suites (all: the 19 of VTAB-1k; fgvc, demo, demo-tiny), groups (natural, specialized, structured), task "
        "names, SOURCEs such as folder:PATH, csv:PATH, npz:PATH, hf:NAME and torchvision:CLASS, or task files "
        "(FILE.toml), comma-separated.",
        autocompletion=completion.tasks,
    ),
]
Seeds = Annotated[str, typer.Option(help="Seeds, as in 0, 0-4 or 0,2,5.")]
Shots = Annotated[
    str | None,
    typer.Option(metavar="N,...", help="Training images per class, as in 1,2,4,8,16; default: all of them."),
]
Backbone = Annotated[
    str | None,
    typer.Option(help="Name of a timm model; default: the suite's backbone.", autocompletion=completion.backbones),
]
Checkpoint = Annotated[
    str | None, typer.Option(help="The backbone's weights: a .npz, .safetensors or .pth file, or 'random' (seeded).")
]
Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A run id or a unique prefix of one; see 'list runs'.", autocompletion=completion.runs
    ),
]
Data = Annotated[
    Path | None, typer.Option(envvar="SHIPBENCH_DATA", help="Folder of VTAB-1k, FGVC or torchvision data sets.")
]
Results = Annotated[Path, typer.Option(envvar="SHIPBENCH_RESULTS", help="Folder of the records.")]
Epochs = Annotated[int | None, typer.Option(help="Number of epochs; short for --set epochs=N.")]
Device = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda, cuda:i or mps.", autocompletion=completion.one_of("auto", "cpu", "cuda", "mps")
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        parser=_number_of_jobs,
        metavar="N|auto",
        help="Runs in parallel; auto, the default, is one per GPU; on a CPU, several if the plan has enough work.",
    ),
]
Stack = Annotated[
    str,
    typer.Option(
        help="Train runs that differ only in seed, lr or weight decay in one pass over the frozen backbone: auto (on "
        "CUDA, up to 4 that fit into memory), off, or up to N runs."
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        help="local, dask (the workers of a Dask cluster), slurm (jobs of a SLURM cluster), or another installed "
        "engine.",
        autocompletion=completion.engines,
    ),
]
Scheduler = Annotated[str | None, typer.Option(help="Address of the Dask scheduler, as in tcp://HOST:8786.")]
Cluster = Annotated[
    list[str] | None,
    typer.Option(
        "--cluster",
        metavar="KEY=VALUE",
        help="Option of the jobs of --engine slurm, as in partition=gpu, time=240 (minutes) or gpus=1; repeatable.",
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help="auto, fp32 or bf16; auto is bf16 where the device has instructions for it, fp32 with --recipe published.",
        autocompletion=completion.one_of("auto", "fp32", "bf16"),
    ),
]
RecipeName = Annotated[
    str,
    typer.Option(
        "--recipe",
        help="default (common to all methods) or published (that of the method's authors).",
        autocompletion=completion.one_of("default", "published"),
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a setting, with METHOD.KEY=VALUE for one method; repeatable."
    ),
]
KeepWeights = Annotated[
    str,
    typer.Option(
        help="trained or full; full also stores the weights of runs that train the whole backbone, so that they can be "
        "exported.",
        autocompletion=completion.one_of("trained", "full"),
    ),
]
Track = Annotated[
    str | None,
    typer.Option(
        help="Experiment trackers that follow the runs, comma-separated: wandb, mlflow, tensorboard, trackio, or an "
        "installed one.",
        autocompletion=completion.trackers,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output instead of tables.")]
Progress = Annotated[
    str,
    typer.Option(
        help="auto (bars on a terminal, lines elsewhere), plain (lines) or json (one JSON object a line), on standard "
        "error.",
        autocompletion=completion.one_of("auto", "plain", "json"),
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")]
Force = Annotated[bool, typer.Option("--force", help="Repeat runs that are done already.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Repeat runs that failed before.")]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        is_eager=True,
        callback=read_config,
        help="TOML file with these options; the command line takes precedence.",
    ),
]


@dataclass(frozen=True)
class GridOptions:
    """The options that all commands over a grid of runs share; see ``grid_command``."""

    tasks: Tasks
    seeds: Seeds = "0"
    shots: Shots = None
    backbone: Backbone = None
    checkpoint: Checkpoint = None
    data: Data = None
    results: Results = Path("results")
    epochs: Epochs = None
    device: Device = "auto"
    jobs: Jobs = None
    stack: Stack = "auto"
    engine: Engine = "local"
    scheduler: Scheduler = None
    cluster: Cluster = None
    precision: Precision = "auto"
    recipe: RecipeName = "default"
    settings: Settings = None
    keep_weights: KeepWeights = "trained"
    track: Track = None
    dry_run: DryRun = False
    force: Force = False
    retry_failed: RetryFailed = False
    as_json: Json = False
    progress: Progress = "auto"

    def __post_init__(self) -> None:
        """Raise ``InputError`` for an unknown kind of progress."""
        one_of(self.progress, _PROGRESS, "--progress", "kind")

    @property
    def kept(self) -> str:
        """What an interruption leaves, and how to continue."""
        if self.force:
            kept = f"finished runs are kept in {self.results}"
            return f"{kept}; without --force the same command executes only the runs that have no record"
        kept = f"finished runs and the checkpoints of unfinished ones are kept in {self.results}"
        return f"{kept}, and the same command continues from there"

    def values(self) -> dict[str, Any]:
        """Return the settings of ``--set`` and ``--epochs`` by name."""
        settings: dict[str, Any] = dict(parse_pairs(self.settings or []))
        if self.epochs is not None:
            if "epochs" in settings:
                raise InputError("epochs is given twice: by --epochs and by --set")
            settings["epochs"] = self.epochs
        return settings

    def executor(self) -> Executor:
        """Return a new executor of the engine, for one plan.

        Raises one ``InputError`` for an unknown engine, or for all options that it refuses.
        """
        from shipbench.engine.executors.registry import EngineOptions, get_executor
        from shipbench.planning.stacks import Stacking, parse_stacking

        problems: list[str] = []
        cluster = value_of(lambda: parse_pairs(self.cluster or [], "--cluster", "partition=gpu"), {}, problems)
        stacking = value_of(lambda: parse_stacking(self.stack), Stacking(), problems)
        options = EngineOptions(self.jobs, stacking, self.scheduler, cluster)
        executor = value_of(lambda: get_executor(self.engine, options), None, problems)
        if executor is None or problems:
            raise InputError(*problems)
        return executor

    def trackers(self) -> dict[str, Tracker]:
        """Return new trackers by name; raise ``InputError`` for one that is unknown or cannot be used."""
        if self.track is None:
            return {}
        from shipbench.trackers.interface import TrackerOptions
        from shipbench.trackers.registry import make_trackers

        return make_trackers(self.track, TrackerOptions(self.results))

    def template(self) -> RunSpec:
        """Return a spec with the values that all runs share."""
        from shipbench.spec import RunSpec

        return RunSpec(
            method="ship",
            task="demo-tiny",
            recipe=self.recipe,
            backbone=self.backbone,
            checkpoint=self.checkpoint,
            precision=self.precision,  # type: ignore[arg-type]
            data=self.data,
            device=self.device,
            keep_weights=self.keep_weights,  # type: ignore[arg-type]
        )


def options_command(group: type[Any]) -> Callable[[Command], Command]:
    """Return a decorator that gives ``command(options: group, ...)`` a parameter for each field of that dataclass."""

    def decorate(command: Command) -> Command:
        special = _special_parameters(command)

        def run_command(**values: Any) -> None:
            command(_from_values(group, values), **{parameter.name: values[parameter.name] for parameter in special})

        return _declared(run_command, command, [*special, *_parameters_of(group)])

    return decorate


def grid_command(command: Command) -> Command:
    """Add the options of a grid and ``--config`` to the parameters of ``command(options: GridOptions, ...)``."""
    special = _special_parameters(command)
    config = inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Config)

    def run_command(**values: Any) -> None:
        options = _from_values(GridOptions, values)
        lines = options.progress == JSON_LINES
        readable = machine_readable(document=options.as_json, lines=lines)
        with readable, stopping(options.kept, print_end if lines else None):
            command(options, **{parameter.name: values[parameter.name] for parameter in special})

    return _declared(run_command, command, [*special, *_parameters_of(GridOptions), config])


def _special_parameters(command: Command) -> list[inspect.Parameter]:
    """Return the parameters of a command but for ``options``."""
    declared = inspect.signature(command, eval_str=True).parameters.values()
    return [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in declared if parameter.name != "options"
    ]


def _parameters_of(group: type[Any]) -> list[inspect.Parameter]:
    """Return a parameter for each field of a dataclass."""
    hints = get_type_hints(group, include_extras=True)
    empty = inspect.Parameter.empty
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]


def _from_values(group: type[Group], values: Mapping[str, Any]) -> Group:
    return group(**{field.name: values[field.name] for field in fields(group)})  # type: ignore[arg-type]


def _declared(run_command: Command, command: Command, parameters: list[inspect.Parameter]) -> Command:
    """Return ``run_command`` with the description of ``command`` and with ``parameters`` as its signature."""
    run_command.__name__, run_command.__doc__ = command.__name__, command.__doc__
    run_command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run_command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run_command
