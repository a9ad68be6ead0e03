"""Methods of other packages: defaults of the base class, and what the registry refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, NewType

import pytest
from annotated_types import Ge

from shipbench import RunSpec
from shipbench.errors import InputError
from shipbench.methods import (
    SMALL_GRID,
    BuildContext,
    Built,
    Method,
    Switches,
    find_method,
    get_method,
    method_names,
    parse_methods,
    registry,
)
from shipbench.planning.ablation import make_variants, parse_switches
from shipbench.report.figures.style import series_styles
from shipbench.report.wording.names import component_name, method_name, method_order, switch_order
from shipbench.settings import Settings, configure, unusable_field
from shipbench.tasks import get_task
from tests.conftest import Outcome
from tests.methods.shipped import SHIPPED
from tests.plug_ins import install


class Plain(Method):
    """A method that sets nothing but what it must."""

    name = "plain"
    summary = "nothing but the defaults"

    def build(self, context: BuildContext) -> Built:
        raise NotImplementedError


@dataclass(frozen=True)
class GateSettings(Settings):
    gate: bool = True
    scale: float = 0.5


class Gated(Plain):
    """A method with a setting that switches apply to."""

    name = "gated"
    title = "Gated"
    settings = GateSettings
    switches: ClassVar[Switches] = {"no-scale": {"gate": True, "scale": 0.0}, "no-gate": {"gate": False}}
    optional_switches: ClassVar[Switches] = {"half-scale": {"scale": 0.25}}
    components: ClassVar[Mapping[str, str]] = {"half-scale": "full scale"}
    colour = "#123456"
    marker = "P"


@dataclass(frozen=True)
class NeedySettings(Settings):
    width: int


@dataclass(frozen=True)
class RecipeSettings(Settings):
    lr: float = 0.1


class Needy(Plain):
    """A method with a setting that has no default."""

    name = "needy"
    settings = NeedySettings


class Shadowing(Plain):
    """A method with a setting of the recipe's."""

    name = "shadowing"
    settings = RecipeSettings


class Untyped(Plain):
    """A method whose settings are no dataclass."""

    name = "untyped"
    settings = dict


class Misspelt(Gated):
    """A method with a switch of a setting that it does not have."""

    name = "misspelt"
    switches: ClassVar[Switches] = {"no-gate": {"gates": False}}


class Idle(Gated):
    """A method with a switch that is on by default."""

    name = "idle"
    switches: ClassVar[Switches] = {"full-scale": {"scale": 0.5, "gate": True}}


@dataclass(frozen=True)
class NestedSettings(Settings):
    gate: GateSettings = field(default_factory=GateSettings)


@dataclass(frozen=True)
class FactorySettings(Settings):
    """Values of every type that a setting can have."""

    parts: tuple[Literal["q", "k", "v"], ...] = field(default_factory=lambda: ("q", "v"))
    power: Literal[1, 2] = 1
    width: Annotated[int, Ge(1)] | None = None
    flags: tuple[bool, bool] = (True, False)


@dataclass(frozen=True)
class HiddenSettings(Settings):
    folder: Path | None = None
    width: Unknown | None = None  # type: ignore[name-defined]  # noqa: F821


class Nested(Plain):
    """A method with settings inside a setting."""

    name = "nested"
    settings = NestedSettings


class Varied(Plain):
    """A method with settings of many types."""

    name = "varied"
    settings = FactorySettings


class Hidden(Plain):
    """A method with a setting of a type that is imported for type checkers alone."""

    name = "hidden"
    settings = HiddenSettings


class Dotted(Plain):
    """A method whose name reads as a method and its setting."""

    name = "gated.scale"


class Listed(Gated):
    """A method with a switch that reads as two."""

    name = "listed"
    switches: ClassVar[Switches] = {"no-gate,no-scale": {"gate": False}}


class AdapterPlus(Gated):
    """A method whose name, and whose switch, hold signs that papers use."""

    name = "adapter+"
    switches: ClassVar[Switches] = {"scale=0.1": {"scale": 0.1}}


class Raising(Plain):
    """A method that cannot be made."""

    name = "raising"

    def __init__(self) -> None:
        raise RuntimeError("no licence")


class Unfinished(Method):
    """A method that cannot build."""

    name = "unfinished"


class Structural:
    """A class with the members of a method that does not derive from it."""

    name = "structural"


def _point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, f"{__name__}:{value}", registry.GROUP)


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install this module's classes as methods beside those of the package."""
    classes = {"plain": "Plain", "gated": "Gated", "unfinished": "Unfinished", "structural": "Structural"}
    classes |= {"other": "Plain", "instance": "__name__", "missing": "Missing"}
    classes |= {
        name.lower(): name for name in ("Needy", "Shadowing", "Untyped", "Misspelt", "Idle", "Nested", "Varied")
    }
    classes |= {name.lower(): name for name in ("Hidden", "Listed", "Raising")}
    classes |= {"gated.scale": "Dotted", "adapter+": "AdapterPlus"}
    broken = EntryPoint("broken", "no_such_package:Broken", registry.GROUP)
    install(monkeypatch, broken, *(_point(name, value) for name, value in classes.items()))


def test_defaults() -> None:
    method = get_method("plain")
    assert (method.title, method.colour, method.stackable, method.trains_on_features) == ("plain", None, False, False)
    assert (dict(method.switches), dict(method.grids())) == ({}, {"small": SMALL_GRID})
    assert dict(method.recipe("default", get_task("dtd"))) == {}
    with pytest.raises(InputError, match="plain has no published settings"):
        method.recipe("published", get_task("dtd"))
    resolved = RunSpec("plain", "dtd").resolved
    assert (resolved.switches, "epochs" in resolved.config) == ("", True)


@pytest.mark.parametrize(
    ("overrides", "switches"),
    [
        ({}, ""),
        ({"gate": False}, "no-gate"),
        ({"scale": 0}, "no-scale"),
        ({"scale": 0, "gate": False}, "no-gate"),
        ({"scale": 0.25, "gate": False}, "no-gate+half-scale"),
    ],
)
def test_active_switches_follow_from_settings(overrides: dict[str, object], switches: str) -> None:
    assert RunSpec("gated", "dtd", overrides=overrides).resolved.switches == switches


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("structural", "is not a method; derive its class from shipbench.methods.Method"),
        ("instance", "is not a method; derive its class from shipbench.methods.Method"),
        ("unfinished", "cannot build a model; implement build"),
        ("other", "has the name 'plain'; set it to 'other'"),
        ("broken", "cannot be imported: No module named 'no_such_package'"),
        ("missing", "cannot be imported"),
        ("needy", "has a setting without a default, 'width'; give it one"),
        ("shadowing", "has a setting called 'lr', as the recipe has; give it another name"),
        ("untyped", "has settings that are no dataclass; derive them from shipbench.settings.Settings"),
        ("misspelt", "has a switch 'no-gate' that changes 'gates', which is not a setting of it"),
        ("idle", "has a switch 'full-scale' that changes nothing: its values are the defaults"),
        ("nested", "has a setting 'gate' that is not a plain value; use int, .*, or several settings"),
        ("hidden", "has a setting whose type cannot be found: name 'Unknown' is not defined; import it at the top"),
        ("gated.scale", "cannot be named on the command line; call it neither all nor zoo, without spaces and"),
        ("listed", "has a switch 'no-gate,no-scale'; call it something without spaces and"),
        ("raising", "cannot be made: no licence"),
        ("gatd", "did you mean 'gated'"),
    ],
)
def test_what_is_not_a_usable_method_is_refused(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        get_method(name)
    assert find_method(name) is None
    assert method_name(name) == name


@pytest.fixture
def mistaken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> EntryPoint:
    """The entry point of a module that Python cannot compile."""
    (tmp_path / "mistaken_plug_in.py").write_text("class Mistaken(\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return EntryPoint("mistaken", "mistaken_plug_in:Mistaken", registry.GROUP)


def test_a_plug_in_that_fails_in_any_way_is_refused_by_name_and_listed(
    monkeypatch: pytest.MonkeyPatch, mistaken: EntryPoint, shipbench: Callable[..., Outcome]
) -> None:
    install(monkeypatch, mistaken)
    with pytest.raises(InputError, match=r"method 'mistaken' \(mistaken_plug_in:Mistaken\) cannot be imported: "):
        get_method("mistaken")
    assert method_name("mistaken") == "mistaken"
    outcome = shipbench("list", "methods", "--json")
    assert outcome.code == 0
    rows = {row["name"]: row for row in json.loads(outcome.out)}
    assert rows["plain"] == {"name": "plain", "summary": "nothing but the defaults", "settings": {}}
    assert rows["mistaken"]["summary"].startswith("unusable: method 'mistaken' (mistaken_plug_in:Mistaken) cannot be")


def test_a_family_that_fails_hides_no_other_method(monkeypatch: pytest.MonkeyPatch, mistaken: EntryPoint) -> None:
    install(monkeypatch, EntryPoint("mistaken", mistaken.value, registry.FAMILIES))
    monkeypatch.setattr(registry, "_families", registry._families.__wrapped__)
    assert "gated" in registry.list_methods()
    with pytest.raises(InputError, match=r"the family of methods 'mistaken' \(.*\) cannot be imported"):
        get_method("mistaken-lora")


def test_a_name_that_two_packages_register_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, EntryPoint("gated", "elsewhere:Gated", registry.GROUP))
    with pytest.raises(InputError, match=r"several packages have the method 'gated' .*elsewhere:Gated.*; rename"):
        get_method("gated")
    assert get_method("plain").name == "plain"


def test_a_family_that_two_packages_register_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, EntryPoint("peft", "elsewhere:Tuners", registry.FAMILIES))
    monkeypatch.setattr(registry, "_families", registry._families.__wrapped__)
    with pytest.raises(InputError, match=r"several packages have the family of methods 'peft' .*elsewhere:Tuners"):
        get_method("peft-lora")
    assert "gated" in registry.list_methods()


def test_reports_print_titles_and_keep_names_of_methods_that_are_not_installed() -> None:
    names = ["gone", "ship", "gated", "vpt-deep", "vpt-shallow", "linear", "full"]
    assert [method_name(name) for name in sorted(names, key=method_order)] == [
        "Full fine-tuning",
        "Linear probe",
        "Gated",
        "gone",
        "VPT-shallow",
        "VPT-deep",
        "SHIP",
    ]


def test_switches_have_the_names_and_the_order_of_their_method() -> None:
    switches = ["unknown", "half-scale", "no-gate", "no-scale"]
    ordered = sorted(switches, key=lambda switch: switch_order(switch, "gated"))
    assert ordered == ["no-scale", "no-gate", "half-scale", "unknown"]
    assert [component_name(switch, "gated") for switch in ordered] == ["scale", "gate", "full scale", "unknown"]
    assert component_name("half-scale", "gone") == "half scale"


def test_settings_of_every_type_are_listed_with_their_defaults_and_read(shipbench: Callable[..., Outcome]) -> None:
    rows = {row["name"]: row for row in json.loads(shipbench("list", "methods", "--json").out)}
    assert rows["varied"]["settings"] == {"parts": ["q", "v"], "power": 1, "width": None, "flags": [True, False]}
    texts = {"parts": "k, v", "power": "2", "width": "3", "flags": "false,true"}
    settings = RunSpec("varied", "dtd", overrides=texts).resolved.settings
    assert settings == FactorySettings(("k", "v"), 2, 3, (False, True))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("parts=q,z", "parts='q,z' is not a list of values, each one of q, k, v"),
        ("power=3", "power='3' is not one of 1, 2"),
        ("flags=true", "flags='true' is not a list of 2 values, each true or false"),
    ],
)
def test_what_a_setting_cannot_be_is_refused_in_words_of_its_type(setting: str, words: str) -> None:
    key, _, value = setting.partition("=")
    with pytest.raises(InputError, match=f"^{words}$"):
        configure(FactorySettings, {key: value})


class Pool(str, Enum):
    MEAN = "mean"
    MAX = "max"


Width = NewType("Width", int)


@dataclass(frozen=True)
class NamedSettings(Settings):
    pool: Pool = Pool.MEAN
    width: Width = Width(8)
    heads: Final[int] = 2


def test_names_may_hold_signs_that_papers_use() -> None:
    assert [method.name for method in parse_methods("adapter+,plain")] == ["adapter+", "plain"]
    spec = RunSpec("adapter+", "dtd", overrides={"scale": 0.1})
    assert spec.resolved.switches == "scale=0.1"
    assert parse_switches("scale=0.1", get_method("adapter+")) == ("scale=0.1",)


def test_a_setting_may_be_an_enum_a_new_type_or_final() -> None:
    assert unusable_field(NamedSettings) == ""
    texts = {"pool": "max", "width": "3", "heads": "4"}
    assert configure(NamedSettings, texts) == NamedSettings(Pool.MAX, Width(3), 4)
    with pytest.raises(InputError, match=r"^pool='min' is not one of mean, max$"):
        configure(NamedSettings, {"pool": "min"})


def test_ablations_leave_optional_switches_out_unless_they_are_named() -> None:
    gated = get_method("gated")
    assert parse_switches(None, gated) == ("no-scale", "no-gate")
    assert make_variants(gated, {}, "half-scale", "leave-one-out", []) == [{}, {"scale": 0.25}]


def test_figures_use_a_methods_colour_once() -> None:
    first, second, unknown = series_styles(["gated", "gated", "gone"])
    assert (first.colour, first.marker) == ("#123456", "P")
    assert len({first.colour, second.colour, unknown.colour}) == 3


def test_sets_of_methods() -> None:
    assert [method.name for method in parse_methods("all")] == ["full", "linear", "ship", "vpt-deep", "vpt-shallow"]
    first, *rest = [method.name for method in parse_methods("ssf,all,ship")]
    assert (first, len(rest)) == ("ssf", 5)


def test_patterns_and_methods_to_leave_out() -> None:
    assert [method.name for method in parse_methods("vpt-*,ship")] == ["vpt-deep", "vpt-shallow", "ship"]
    assert [method.name for method in parse_methods("all", "vpt-*,none-*,full")] == ["linear", "ship"]
    # A method that cannot be used is no reason to do without the others.
    assert {"plain", "ship"} <= set(method_names("zoo")) - set(method_names("broken,peft-*"))
    for text, exclude, words in (
        ("pefft-*", "", r"no method is called 'pefft-\*'"),
        ("ship", "shipp", "unknown method 'shipp' .did you mean 'ship'"),
        ("ship,linear", "ship,lin*", r"--exclude ship,lin\* leaves none of the methods ship,linear"),
    ):
        with pytest.raises(InputError, match=words):
            parse_methods(text, exclude)


def test_every_installed_method_has_a_look_of_its_own() -> None:
    looks = {name: get_method(name) for name in SHIPPED}
    assert len({method.colour for method in looks.values()}) == len(looks)
    assert len({(method.colour, method.marker) for method in looks.values()}) == len(looks)
    assert all(method.title != name for name, method in looks.items())


def test_colours_of_the_packages_own_methods() -> None:
    looks = series_styles(["full", "linear", "vpt-shallow", "vpt-deep", "ship"])
    assert [(look.colour, look.marker, look.line) for look in looks] == [
        ("#009e73", "s", "-"),
        ("#7b7f87", "o", "-"),
        ("#56b4e9", "^", "-"),
        ("#0072b2", "D", "-"),
        ("#d55e00", "o", "-"),
    ]
