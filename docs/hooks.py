"""MkDocs hooks: generate the reference from the code, and serve files that live outside ``docs``.

The pages of commands, settings and record columns are written at build time from the command line, the settings
classes and the record, so they cannot disagree with the code.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer import Context
from typer.core import TyperGroup

from shipbench.cli import app
from shipbench.methods import get_method, list_methods
from shipbench.recipe import Recipe
from shipbench.record import RunRecord, record_columns

_ROOT = Path(__file__).resolve().parent.parent
# Site path of each file, or of each file of a folder, that pages show or link to.
_MOUNTED = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "examples/notebook.ipynb": "examples/notebook.ipynb",
    "reports/bench": "reports/bench",
    "reports/demo/figures": "reports/demo/figures",
    "reports/demo/index.html": "reports/demo/index.html",
    "reports/reliability.md": "reports/reliability.md",
    "studies": "studies",
}
_KINDS = {bool: "`true` or `false`", int: "whole number", float: "number", types.NoneType: "`none`"}
_BOUNDS = {"gt": "above {}", "ge": "at least {}", "lt": "below {}", "le": "at most {}"}
_DEFAULTS = {None: "none", True: "true", False: "false"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated and the mounted files."""
    for path, content in (
        ("reference/commands.md", _commands_page()),
        ("reference/settings.md", _settings_page()),
        ("reference/record.md", _record_page()),
    ):
        files.append(File.generated(config, path, content=content))
    for path, source in _mounted_files():
        files.append(File.generated(config, path, abs_src_path=str(source)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that leave ``docs`` in a checkout at the site paths of the files they name."""
    source = _MOUNTED.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return re.sub(r"\]\(([^)#:]+)(#[^)]*)?\)", lambda link: _site_link(link, source, page.file.src_uri), markdown)


def _mounted_files() -> Iterator[tuple[str, Path]]:
    for site, source in _MOUNTED.items():
        path = _ROOT / source
        if path.is_dir():
            yield from ((f"{site}/{file.name}", file) for file in sorted(path.iterdir()))
        else:
            yield site, path


def _site_link(link: re.Match[str], source: str, page: str) -> str:
    """Return a Markdown link target relative to ``page`` on the site instead of to ``source`` in the repository."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[1]))
    if target.startswith("docs/"):
        target = target.removeprefix("docs/")
    else:
        mounted = next((site for site, path in _MOUNTED.items() if f"{target}/".startswith(f"{path}/")), None)
        if mounted is None:
            return link[0]
        target = mounted + target.removeprefix(_MOUNTED[mounted])
    return f"]({posixpath.relpath(target, posixpath.dirname(page) or '.')}{link[2] or ''})"


def _commands_page() -> str:
    root = typer.main.get_command(app)
    lines = [
        "# Commands",
        "",
        "Generated from the command line itself; `shipbench COMMAND --help` prints the same.",
        "",
    ]
    for name, command in _leaves("shipbench", root):
        lines += [f"## {name}", "", *_command(name, command), ""]
    return "\n".join(lines)


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield every command with its full name; a group yields its commands, the root its options as well."""
    if not isinstance(command, TyperGroup):
        yield name, command
        return
    if command.params:
        yield name, command
    for part, child in command.commands.items():
        yield from _leaves(f"{name} {part}", child)


def _command(name: str, command: Any) -> Iterator[str]:
    context = Context(command, info_name=name)
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [
        parameter
        for parameter in command.params
        if parameter.param_type_name == "option" and not parameter.hidden and parameter.name != "help"
    ]
    yield from (command.help or "").strip().splitlines()
    usage = [name, *(_argument_name(argument) for argument in arguments)]
    yield from ("", "```text", " ".join([*usage, *(["[OPTIONS]"] if options else [])]), "```", "")
    if arguments:
        names = [(f"`{_argument_name(argument)}`", _meaning(argument)) for argument in arguments]
        yield from _table(("Argument", "Meaning"), names)
    if options:
        rows = [(_flag(option, context), _default(option), _meaning(option)) for option in options]
        yield from _table(("Option", "Default", "Meaning"), rows)


def _argument_name(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    shown = name if argument.required else f"[{name}]"
    return f"{shown}..." if argument.nargs == -1 else shown


def _flag(option: Any, context: Context) -> str:
    """Return the option as ``--help`` shows it, value included."""
    return f"`{option.get_help_record(context)[0]}`"


def _default(option: Any) -> str:
    if option.required:
        return "required"
    shown = option.default
    return "" if shown in (None, False, []) or callable(shown) else f"`{shown}`"


def _meaning(parameter: Any) -> str:
    text = (parameter.help or "").replace("|", "&#124;")
    return f"{text} Environment: `{parameter.envvar}`." if parameter.envvar else text


def _settings_page() -> str:
    lines = [
        "# Settings",
        "",
        "`--set KEY=VALUE` changes a setting, `--set METHOD.KEY=VALUE` changes it for one method only.",
        "A value that does not fit the type is refused.",
        "",
        "## Recipe",
        "",
        "Settings of training, common to all methods. A method or a suite may change them: see",
        "[Recipes](../explanation/protocol.md#recipes). `schedule` is one of these",
        "[schedules](../explanation/protocol.md#schedules).",
        "",
        *_fields(Recipe),
    ]
    for method in map(get_method, list_methods()):
        if dataclasses.fields(method.settings):
            lines += [f"## {method.name}", "", f"{method.summary[0].upper()}{method.summary[1:]}.", ""]
            lines += _fields(method.settings)
    return "\n".join(lines)


def _fields(config: type[Any]) -> Iterator[str]:
    yield from _paragraphs(config.__doc__ or "")
    hints = get_type_hints(config, include_extras=True)
    rows = ((f"`{f.name}`", _values(hints[f.name]), f"`{_as_text(f.default)}`") for f in dataclasses.fields(config))
    yield from _table(("Setting", "Values", "Default"), rows)


def _values(annotation: Any) -> str:
    """Return the values that a setting of this type takes, in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return ", ".join([_values(arguments[0]), *_bounds(arguments[1:])])
    if origin in (Union, types.UnionType):
        *first, last = map(_values, sorted(arguments, key=lambda each: each is types.NoneType))
        return f"{', '.join(first)}{',' if ',' in first[-1] else ''} or {last}"
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin is tuple:
        return _values(arguments[0]).replace("number", f"{len(arguments)} numbers")
    return _KINDS.get(annotation, "text")


def _bounds(metadata: Iterable[Any]) -> Iterator[str]:
    for bound in metadata:
        limits = {name: getattr(bound, name, None) for name in _BOUNDS}
        yield from (_BOUNDS[name].format(limit) for name, limit in limits.items() if limit is not None)


def _as_text(default: Any) -> str:
    """Return a default as ``--set`` takes it."""
    return _DEFAULTS[default] if default is None or isinstance(default, bool) else str(default)


def _paragraphs(docstring: str) -> Iterator[str]:
    yield from (line.strip().replace("``", "`") for line in docstring.strip().splitlines())
    yield ""


def _record_page() -> str:
    lines = ["# Record columns", "", *_paragraphs(RunRecord.__doc__ or "")]
    columns = record_columns()
    for topic in dict.fromkeys(column.topic for column in columns):
        rows = [(f"`{c.name}`", c.kind, c.unit, c.meaning) for c in columns if c.topic == topic]
        lines += [f"## {topic.capitalize()}", "", *_table(("Column", "Type", "Unit", "Meaning"), rows)]
    return "\n".join(lines)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield from (_row(header), _row(("---",) * len(header)))
    yield from (_row(row) for row in rows)
    yield ""


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(' '.join(cell.split()) for cell in cells)} |"
