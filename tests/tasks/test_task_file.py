"""Tasks of one's own: SOURCEs on the command line, task files, names that clash."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from shipbench import RunSpec
from shipbench.errors import InputError
from shipbench.tasks import get_task, load_task_file, parse_tasks, suite_of, suite_tasks
from shipbench.tasks.catalogue import FGVC, VTAB, Draw

FULL = """
[suite]
name = "birds-and-bugs"
backbone = "vit_tiny_patch16_224"
[[task]]
name = "bugs"
group = "Field"
source = "folder:bugs"
train = 800
val = 200
test = "all"
resize = "crop"
augment = "flip-crop"
metric = "mean-per-class"
classes = ["ant", "bee"]
allow_leaks = true
[[task]]
source = "csv:lists/birds.csv"
label_column = "species"
splits = { test = "val" }
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_task_file_is_read(tmp_path: Path) -> None:
    suite = load_task_file(write(tmp_path / "own.toml", FULL))
    bugs, birds = suite
    assert (suite.name, len(suite), suite[0]) == ("birds-and-bugs", 2, bugs)
    assert (bugs.name, bugs.group, bugs.suite, bugs.source, bugs.location) == (
        *("bugs", "Field", "birds-and-bugs"),
        *("folder", "bugs"),
    )
    assert (bugs.draw, bugs.resize, bugs.augment, bugs.metric) == (
        *(Draw(800, 200, None), "crop"),
        *("flip-crop", "mean-per-class"),
    )
    assert (bugs.class_names, bugs.allow_leaks, bugs.base) == (("ant", "bee"), True, str(tmp_path))
    assert (birds.name, birds.draw, birds.resize, birds.allow_leaks) == ("birds", Draw(), "squash", False)
    assert json.loads(birds.options) == {"label_column": "species", "splits": {"test": "val"}}
    assert suite_tasks(birds) == ("bugs", "birds")
    assert suite_of(birds).backbone == "vit_tiny_patch16_224"
    assert RunSpec("linear", birds).resolved.backbone == "vit_tiny_patch16_224"


def test_specs_of_own_tasks_can_be_compared_hashed_and_sent_to_other_processes(tmp_path: Path) -> None:
    bugs, birds = load_task_file(write(tmp_path / "own.toml", FULL))
    specs = {RunSpec("linear", task, seed=seed, shots=2) for task in (bugs, birds) for seed in (0, 1)}
    assert len(specs) == 4
    assert pickle.loads(pickle.dumps(specs)) == specs
    assert RunSpec("linear", get_task("dtd")) == RunSpec("linear", "dtd")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[task]]\nsource = 'folder:a'\ntrian = 3", "unknown key 'trian' of task 'a' in .*did you mean 'train'"),
        ("[suite]\nnam = 'x'\n[[task]]\nsource = 'folder:a'", "unknown key 'nam' of .suite. in .*did you mean 'name'"),
        ("[[tasks]]\nsource = 'folder:a'", "unknown key 'tasks' of task file .*did you mean 'task'"),
        ("[suite]\nname = 'x'", "has no task; begin each with"),
        ("[[task]]\nname = 'a'", "task 'a' has no source"),
        ("[[task]]\nsource = 'bugs'", "'bugs' is not a source; write one as in folder:PATH"),
        ("[[task]]\nsource = 'folder:a'\ntrain = 0", "train of task 'a' in .* is 0; it must be a number of images"),
        ("[[task]]\nsource = 'folder:a'\nval = 'some'", "val of task 'a' .* is 'some'"),
        ("[[task]]\nsource = 'folder:a'\nresize = 'pad'", "resize of task 'a' .* 'pad'; choose from squash, crop"),
        ("[[task]]\nsource = 'folder:a'\nallow_leaks = 1", "allow_leaks of task 'a' .* must be true or false"),
        ("[[task]]\nsource = 'folder:a'\nclasses = 'ant'", "classes of task 'a' .* is not a list of names"),
        ("[[task]]\nsource = 'folder:a'\nclasses = ['b', 'b']", "names a class twice"),
        ("[[task]]\nsource = 'folder:a'\nname = ''", "name is ''; it must be a text"),
        (2 * "[[task]]\nsource = 'folder:a'\nname = 'b'\n", "two tasks called 'b'"),
        ("[suite", "is not TOML"),
        (f"classes = {'[' * 5000}", r"own\.toml cannot be read: its values are nested too deeply"),
    ],
)
def test_a_malformed_task_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_task_file(write(tmp_path / "own.toml", text))


def test_a_task_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.toml cannot be read: No such file"):
        load_task_file(tmp_path / "none.toml")


def test_a_source_is_a_suite_of_one_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    task = get_task("folder:data/bugs/")
    assert (task.name, task.suite, suite_tasks(task)) == ("bugs", "bugs", ("bugs",))
    assert (task.source, task.location, task.base) == ("folder", "data/bugs/", str(tmp_path))
    assert get_task("csv:/data/Birds of Peru.csv").name == "Birds-of-Peru"
    assert get_task("csv:lists/birds.txt:/data/birds").name == "birds"
    assert get_task("folder:/data/lists:/data/birds").name == "lists"
    (tmp_path / "odd:name").mkdir()
    assert get_task("folder:odd:name").name == "odd-name"
    assert get_task("npz:/data/pathmnist_64.npz").name == "pathmnist_64"
    assert get_task("folder:/data/DTD").name == "DTD"
    assert get_task("hf:user/flowers:small").name == "flowers-small"
    assert get_task("torchvision:CIFAR100").name == "tv-cifar100"
    assert get_task("folder:.").name == tmp_path.name
    monkeypatch.setenv("HOME", "/home/ann")
    assert [get_task(f"folder:{place}").name for place in ("~", "~/bugs", "~nobody-has-this-name")] == [
        *("ann", "bugs"),
        "~nobody-has-this-name",
    ]
    assert RunSpec("linear", "folder:bugs").task == get_task("folder:bugs")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("csv:flowers/train.csv", "flowers"),
        ("csv:lists/train.txt:/data/birds", "lists"),
        ("csv:/data/flowers/annotations/Labels.TSV", "flowers"),
        ("npz:../../flowers/metadata.npz", "flowers"),
        ("folder:flowers/train/", "flowers"),
        ("csv:flowers/test.csv", "flowers-test"),
        ("csv:flowers/test/labels.csv", "flowers-test"),
        ("npz:flowers/Test/annotations/metadata.npz", "flowers-Test"),
        ("csv:/test.csv", "csv-test"),
        ("folder:flowers/valid", "flowers-valid"),
        ("hf:user/train", "train"),
        ("hf:here/train.parquet", "here"),
        ("csv:/train.csv", "csv"),
        ("csv:flowers/trains.csv", "trains"),
    ],
)
def test_a_split_or_labels_are_called_after_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "train.parquet").touch()
    assert get_task(source).name == name
    (task,) = load_task_file(write(Path("own.toml"), f"[[task]]\nsource = '{source}'"))
    assert task.name == name


def test_a_path_without_the_kind_of_its_source_is_refused_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data/bugs").mkdir(parents=True)
    for name in ("a.csv", "b.TSV", "c.txt", "d.npz", "e.parquet", "f.zip"):
        Path("data", name).touch()
    kinds = {"bugs": "folder", "a.csv": "csv", "b.TSV": "csv", "c.txt": "csv", "d.npz": "npz", "e.parquet": "hf"}
    for name, kind in kinds.items():
        with pytest.raises(InputError) as caught:
            parse_tasks(f"data/{name}")
        assert str(caught.value) == f"unknown task 'data/{name}'; to use the images there, write {kind}:data/{name}"
    for name, hint in (
        ("data/wasps", "; name images as in folder:PATH, or see"),
        ("data/f.zip", "; name images as in folder:PATH, or see"),
        ("vtab/svhn", " (did you mean 'svhn'?); see"),
    ):
        with pytest.raises(InputError) as caught:
            parse_tasks(name)
        assert str(caught.value) == f"unknown task {name!r}{hint} 'shipbench list tasks'"
    for odd in ("a" * 5000, "a\0b", ""):
        with pytest.raises(InputError, match="unknown task"):
            get_task(odd)


@pytest.mark.parametrize(
    ("place", "tasks"),
    [
        ("copies/vtab", "all --data copies/vtab for VTAB-1k"),
        ("copies/vtab/cifar/", "cifar100 --data copies/vtab for VTAB-1k"),
        ("copies/my part", "dtd,svhn,nabirds --data 'copies/my part' for VTAB-1k and FGVC"),
        ("copies/fgvc", "fgvc --data copies/fgvc for FGVC"),
        (".", "sun397 --data .. for VTAB-1k"),
    ],
)
def test_a_folder_of_catalogued_tasks_is_refused_with_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, tasks: str
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {
        "vtab": ["cifar", *(task.name for task in VTAB if task.name != "cifar100")],
        "my part": ["svhn", "dtd", "NABirds", "other"],
        "fgvc": ["CUB_200_2011", *(task.name for task in FGVC if task.name != "cub-200-2011")],
    }
    for parent, children in names.items():
        for child in children:
            Path("copies", parent, child).mkdir(parents=True)
    (tmp_path / "sun397" / "digits").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "sun397" if place == "." else tmp_path)
    with pytest.raises(InputError) as caught:
        parse_tasks(place)
    assert str(caught.value) == f"unknown task {place!r}; write {tasks}, or folder:{place} for images of your own"


def test_names_that_clash_get_a_number() -> None:
    tasks = parse_tasks("folder:/a/bugs,folder:/b/bugs,csv:/c/bugs.csv,folder:/data/dtd,dtd,folder:/a/bugs")
    assert [task.name for task in tasks] == ["bugs", "bugs-2", "bugs-3", "dtd-2", "dtd"]
    assert [task.suite for task in tasks] == ["bugs", "bugs-2", "bugs-3", "dtd-2", "vtab-1k"]
    assert get_task("folder:/data/demo").name == "demo-2"


def test_a_source_with_the_name_of_another_suite_gets_a_number(tmp_path: Path) -> None:
    for name in ("ants", "bees"):
        (tmp_path / name).mkdir()
    text = "".join(f'[[task]]\nname = "{name}"\nsource = "folder:{name}"\n' for name in ("ants", "bees"))
    (tmp_path / "bugs.toml").write_text(text)
    tasks = parse_tasks(f"{tmp_path / 'bugs.toml'},folder:other/bugs")
    assert [(task.name, task.suite) for task in tasks] == [("ants", "bugs"), ("bees", "bugs"), ("bugs-2", "bugs-2")]


def test_task_files_sources_and_names_are_mixed(tmp_path: Path) -> None:
    file = write(tmp_path / "own.toml", FULL)
    tasks = parse_tasks(f"demo-tiny,{file},folder:/x/bugs")
    assert [(task.suite, task.name) for task in tasks] == [
        ("demo-tiny", "demo-tiny"),
        ("birds-and-bugs", "bugs"),
        ("birds-and-bugs", "birds"),
        ("bugs-2", "bugs-2"),
    ]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (("all", "a"), None, "suite 'all' of a task file has a name of the catalogue; give it another `name`"),
        (("x", "a"), ("y", "b/a"), "two task files have a task called 'a'; give one of them another `name`"),
        (("x", "a"), ("x", "b"), "two task files have a suite called 'x'; give one of them another `name`"),
    ],
)
def test_task_files_with_the_names_of_others_are_refused(
    tmp_path: Path, first: tuple[str, str], second: tuple[str, str] | None, message: str
) -> None:
    files = [
        write(tmp_path / f"{number}.toml", f"[suite]\nname = '{suite}'\n[[task]]\nsource = 'folder:{location}'")
        for number, (suite, location) in enumerate(filter(None, (first, second)))
    ]
    with pytest.raises(InputError, match=message):
        parse_tasks(",".join(map(str, files)))


def test_a_name_of_the_catalogue_in_a_task_file_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "own.toml", "[[task]]\nname = 'dtd'\nsource = 'folder:bugs'")
    with pytest.raises(InputError, match="task 'dtd' of a task file has a name of the catalogue; give it another"):
        parse_tasks(str(file))


def test_tasks_of_a_file_that_have_no_name_get_a_number_where_it_is_taken(tmp_path: Path) -> None:
    named = ("folder:eurosat/train", "csv:flowers/train.csv", "csv:flowers/labels.csv", "folder:flowers/test")
    tables = [f"[[task]]\nsource = '{source}'" for source in named]
    file = write(tmp_path / "own.toml", "\n".join([*tables, "[[task]]\nsource = 'folder:x'\nname = 'flowers'"]))
    names = ["eurosat-2", "flowers-2", "flowers-3", "flowers-test", "flowers"]
    assert [task.name for task in load_task_file(file)] == names
    assert [task.name for task in parse_tasks(f"{file},dtd,folder:flowers")] == [*names, "dtd", "flowers-4"]
    assert suite_tasks(load_task_file(file)[0]) == tuple(names)


def test_an_unknown_kind_of_source_is_named() -> None:
    from shipbench.data.sources import open_source

    with pytest.raises(InputError, match=r"'foldr', which is not installed \(did you mean 'folder'"):
        open_source(get_task("foldr:/data/bugs"), None, ("train",))
    with pytest.raises(InputError, match="source 'demo' reads no location"):
        open_source(get_task("demo:digits"), None, ("train",))
