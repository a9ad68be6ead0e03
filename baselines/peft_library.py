"""The tuners of the installed ``peft`` library and their settings, read from its source without importing it.

Importing ``peft`` imports torch and transformers, which takes seconds; listing methods and planning runs must not.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Optional, Union, get_args, get_origin

_NAMES: Mapping[str, Any] = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "Optional": Optional,
    "Union": Union,
    "Literal": Literal,
}
_PLAIN = (int, float, bool, str, type(None))
_PROMPTS = "PromptLearningConfig"
# DoRA is a setting of LoRA in the library, and a method in the literature.
_FIXED: Mapping[str, tuple[str, Mapping[str, Any]]] = {"dora": ("lora", {"use_dora": True})}
# Base classes without settings of a tuner.
_ROOTS = ("PeftConfig", _PROMPTS)


@dataclass(frozen=True)
class Setting:
    """A field of a configuration: its name, type and default."""

    name: str
    type: Any
    default: Any


@dataclass(frozen=True)
class Tuner:
    """A tuner by its name in the library, and the name of its configuration class."""

    name: str
    config: str

    @property
    def acts_on_norms(self) -> bool:
        """Whether the tuner acts on norms instead of linear layers."""
        return self.name == "ln_tuning"

    @property
    def learns_prompts(self) -> bool:
        """Whether the tuner adds learned tokens to the input of a language model."""
        return any(_PROMPTS in _base_names(node) for node in _lineage(self.config))

    @property
    def settings(self) -> dict[str, Setting]:
        """The fields of the configuration that are numbers, texts or truth values, inherited ones included."""
        nodes = reversed(list(_lineage(self.config)))
        return {setting.name: setting for node in nodes for setting in _settings_in(node)}


@dataclass(frozen=True)
class Variant:
    """A tuner as one method: its name in the literature, the tuner, and the settings that the method fixes."""

    name: str
    tuner: Tuner
    fixed: Mapping[str, Any]

    @property
    def method(self) -> str:
        """The name of the method, as in ``peft-ln-tuning``."""
        return "peft-" + self.name.replace("_", "-")


@cache
def tuners() -> Mapping[str, Tuner]:
    """Return every tuner that the installed library registers, by name; none if the library is not installed."""
    modules = [ast.parse(file.read_text(encoding="utf-8")) for file in _files("tuners/*/__init__.py")]
    registered = (tuner for module in modules for tuner in _registered(module))
    return {tuner.name: tuner for tuner in registered}


@cache
def variants() -> Mapping[str, Variant]:
    """Return what the library offers as methods, by name."""
    available = tuners()
    plain = {name: Variant(name, tuner, {}) for name, tuner in available.items()}
    fixed = {name: Variant(name, available[of], fixed) for name, (of, fixed) in _FIXED.items() if of in available}
    return {**plain, **fixed}


def _files(pattern: str) -> list[Path]:
    spec = importlib.util.find_spec("peft")
    return sorted(Path(spec.origin).parent.glob(pattern)) if spec is not None and spec.origin else []


def _registered(module: ast.Module) -> Iterator[Tuner]:
    for node in ast.walk(module):
        match node:
            case ast.Call(func=ast.Name(id="register_peft_method"), keywords=keywords):
                values = {keyword.arg: keyword.value for keyword in keywords}
                yield Tuner(ast.literal_eval(values["name"]), ast.unparse(values["config_cls"]))


@cache
def _configurations() -> Mapping[str, ast.ClassDef]:
    """Return the definition of every configuration class by its name."""
    return {node.name: node for module in _modules() for node in module.body if isinstance(node, ast.ClassDef)}


@cache
def _choices() -> Mapping[str, Any]:
    """Return the types that the modules of configurations define as ``NAME = Literal[...]``."""
    found = {}
    for node in (node for module in _modules() for node in module.body):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Subscript(value=ast.Name(id="Literal"))):
                found[name] = _evaluated(node.value, _NAMES)
    return found


@cache
def _modules() -> Sequence[ast.Module]:
    """Return the modules with a configuration; parsing those without one would take longer than all others."""
    texts = [file.read_text(encoding="utf-8") for file in (*_files("tuners/*/config.py"), *_files("tuners/*.py"))]
    return [ast.parse(text) for text in texts if re.search(r"^class \w+Config\b", text, re.MULTILINE)]


def _lineage(config: str) -> Iterator[ast.ClassDef]:
    """Return the definition of a configuration and those that it inherits from, without the library's root classes."""
    node = _configurations()[config]
    yield node
    for base in _base_names(node):
        if base not in _ROOTS and base in _configurations():
            yield from _lineage(base)


def _base_names(node: ast.ClassDef) -> list[str]:
    return [ast.unparse(base).rpartition(".")[2] for base in node.bases]


def _settings_in(node: ast.ClassDef) -> Iterator[Setting]:
    """Return the fields of a class whose type and default are plain values."""
    for statement in node.body:
        if not isinstance(statement, ast.AnnAssign) or statement.value is None:
            continue
        annotation, default = _type_of(statement.annotation), _default_of(statement.value)
        if annotation is not None and isinstance(default, _PLAIN):
            yield Setting(ast.unparse(statement.target), annotation, default)


def _type_of(annotation: ast.expr) -> Any:
    """Return the type that an annotation stands for, or None if values of it are not plain."""
    try:
        kind = _narrowed(_evaluated(annotation, {**_NAMES, **_choices()}))
    except (NameError, TypeError, AttributeError):
        return None
    return kind if _is_plain(kind) else None


def _evaluated(expression: ast.expr, names: Mapping[str, Any]) -> Any:
    return eval(compile(ast.Expression(expression), "peft", "eval"), {"__builtins__": {}}, dict(names))


def _narrowed(kind: Any) -> Any:
    """Return a union of ``str`` and named choices as these choices, because the library refuses any other text."""
    options = get_args(kind)
    named = any(get_origin(option) is Literal for option in options)
    return Union[tuple(option for option in options if option is not str)] if named else kind  # noqa: UP007


def _is_plain(kind: Any) -> bool:
    if get_origin(kind) is Literal or kind in _PLAIN:
        return True
    options = get_args(kind)
    return bool(options) and get_origin(kind) not in (list, dict, tuple) and all(map(_is_plain, options))


def _default_of(value: ast.expr) -> Any:
    """Return the default in ``field(default=...)`` or a plain constant, and the class ``object`` for any other."""
    if isinstance(value, ast.Call):
        values = [keyword.value for keyword in value.keywords if keyword.arg == "default"]
        value = values[0] if values else value
    try:
        return ast.literal_eval(value)
    except ValueError:
        return object
