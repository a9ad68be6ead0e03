"""The output and exit codes of ``shipbench data``."""

from __future__ import annotations

import csv
import errno
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from shipbench.cli.data import app
from shipbench.data import fingerprint
from shipbench.data.inspection import verify
from shipbench.data.inspection.summary import summarise
from shipbench.data.types import TaskReport
from shipbench.errors import InputError
from shipbench.tasks import get_task
from tests.conftest import Shipbench
from tests.data.archives import cut_in_two
from tests.data.builders import small_task, vtab_tree
from tests.data.test_fetch import packed
from tests.hub import DATA_SET, REPO, Hub, serve
from tests.tasks.pictures import image_folder

TASKS = ("cifar100", "dtd")


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


@pytest.fixture
def copy(tmp_path: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a copy of two tasks and restrict ``verify`` to them."""
    small = partial(verify.verify, tasks=[small_task(name) for name in TASKS])
    monkeypatch.setattr(verify, "verify", small)
    return vtab_tree(tmp_path / "copy", tasks=TASKS, folders={"cifar100": "cifar"})


def test_verify_of_a_sound_copy_exits_0(copy: Path) -> None:
    code, out = run("verify", copy)
    assert code == 0
    rows = [line for line in out.splitlines() if line.startswith("│ ")]
    assert [row.split("│")[1].strip() for row in rows] == list(TASKS)
    assert [cell.strip() for cell in rows[0].split("│")[2:11]] == [
        *("ok", "cifar", "8", "2", "10", "6", "png", "12x10", "10"),
    ]
    assert fingerprint(get_task("dtd"), copy)[:12] in rows[1]
    assert "all 2 tasks are in order" in out


def test_verify_of_a_broken_copy_lists_problems_and_exits_1(copy: Path) -> None:
    (copy / "dtd/images/test/000000.png").unlink()
    code, out = run("verify", copy, "--jobs", 1)
    assert code == 1
    assert f"problem: dtd: {copy / 'dtd'}/images/test/000000.png is missing" in out
    assert "1 of 2 tasks has problems" in out


def test_verify_shows_warnings_without_failing(tmp_path: Path, copy: Path) -> None:
    code, out = run("verify", vtab_tree(tmp_path / "jpeg", tasks=TASKS, image_format="jpeg"))
    assert code == 0
    assert "warning: cifar100: LOSSY COPY" in out
    assert "│ warnings │" in out


def test_findings_with_control_characters_do_not_reach_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = TaskReport("dtd", None, ("the file a\x1b[2J.png is missing",))
    monkeypatch.setattr(verify, "verify", lambda *_, **__: [report])
    (tmp_path / "dtd").mkdir()
    code, out = run("verify", tmp_path)
    assert code == 1
    assert "problem: dtd: the file a [2J.png is missing" in out


def test_verify_takes_the_folder_from_the_environment(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIPBENCH_DATA", str(copy))
    code, out = run("verify")
    assert code == 0
    assert "all 2 tasks are in order" in out


def test_verify_of_a_folder_without_a_copy_is_bad_input(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError) as caught:
            run("verify", folder)
        assert caught.value.exit_code == 2


def test_the_source_for_other_images_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flowers102").mkdir()
    (tmp_path / "bugs.csv").touch()
    for place, words in (
        (".", "rename it to oxford_flowers102; for images of your own, name folder:. as the task"),
        ("flowers102", "caltech101, ...; for images of your own, name folder:flowers102 as the task"),
        ("bugs.csv", "a file (for images of your own, name csv:bugs.csv as the task); name the folder"),
    ):
        for command in (("verify", place), ("inspect", "dtd", "--data", place)):
            with pytest.raises(InputError) as caught:
                run(*command)
            assert words in str(caught.value)


def test_verify_lists_every_image_that_is_broken_or_repeated(
    shipbench: Shipbench, tmp_path: Path, private_cache: Path
) -> None:
    bugs, file = image_folder(tmp_path / "bugs", {"train": (3, 6), "test": (2, 2)}, ("ant", "bee")), tmp_path / "f.csv"
    for number in range(5):
        shutil.copy(bugs / "train/bee/0.png", bugs / f"test/bee/copy{number}.png")
    shutil.copy(bugs / "train/ant/0.png", bugs / "train/bee/9.png")
    shutil.copy(bugs / "train/ant/1.png", bugs / "train/ant/9.png")
    (bugs / "train/ant/2.png").write_bytes(b"text")
    outcome = shipbench("data", "verify", f"folder:{bugs}", "--list", file)
    assert outcome.code == 1
    assert "--list FILE.csv names all); they inflate the test accuracy, so remove one of each" in outcome.out
    assert f"wrote {file}: 8 images" in outcome.out
    copies = [["test and train", f"test/bee/copy{number}.png", "train/bee/0.png"] for number in range(5)]
    with file.open(newline="") as stream:
        header, *rows = csv.reader(stream)
    assert header == ["kind", "image", "equal_to"]
    assert [[kind, *(place.removeprefix(f"{bugs}/") for place in places)] for kind, *places in rows] == [
        ["broken", "train/ant/2.png", ""],
        ["repeated", "train/ant/9.png", "train/ant/1.png"],
        ["two classes", "train/bee/9.png", "train/ant/0.png"],
        *copies,
    ]
    for _, image, _ in rows:
        Path(image).unlink()
    again = shipbench("data", "verify", f"folder:{bugs}", "--list", file)
    assert (again.code, file.read_bytes()) == (0, b"kind,image,equal_to\r\n")


def test_a_list_that_cannot_be_written_is_one_sentence(
    shipbench: Shipbench, tmp_path: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"folder:{image_folder(tmp_path / 'bugs', {'': (3, 3, 3)})}"
    outcome = shipbench("data", "verify", source, "--list", tmp_path)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == f"error: --list: {tmp_path} is a folder; name a file\n"

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shipbench.runtime.files.os.fsync", full)
    outcome = shipbench("data", "verify", source, "--list", tmp_path / "f.csv")
    assert outcome.code == 2
    assert f"error: --list: cannot write {tmp_path / 'f.csv'}: No space left on device\n" in outcome.err
    assert not list(tmp_path.glob("*f.csv*"))


def test_data_sets_of_torchvision_are_read_where_runs_read_them(
    shipbench: Shipbench, tmp_path: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_folder(tmp_path / "store" / "eurosat" / "2750", {"": (5, 5)}, ("Forest", "River"))
    for image in (tmp_path / "store").rglob("*.png"):
        image.rename(image.with_suffix(".jpg"))
    for command in (("data", "verify"), ("list", "tasks")):
        assert shipbench(*command, "torchvision:EuroSAT").code == 2
        outcome = shipbench(*command, "torchvision:EuroSAT", "--data", tmp_path / "store")
        assert outcome.code == 0, outcome.err
        assert f"--tasks torchvision:EuroSAT --data {tmp_path / 'store'}" in outcome.err
    monkeypatch.setenv("SHIPBENCH_DATA", str(tmp_path / "store"))
    for command in (("data", "verify"), ("list", "tasks")):
        assert shipbench(*command, "torchvision:EuroSAT").code == 0


def test_import_lists_the_tasks(copy: Path, tmp_path: Path) -> None:
    code, out = run("import", copy, "--to", tmp_path / "to")
    assert code == 0
    assert "imported 2 tasks" in out
    assert "cifar100, dtd" in out
    assert run("verify", tmp_path / "to")[0] == 0


def test_an_import_names_the_tasks_that_a_copy_lacks(copy: Path, tmp_path: Path, shipbench: Shipbench) -> None:
    outcome = shipbench("data", "import", copy, "--to", tmp_path / "to")
    assert f"note: {tmp_path / 'to'} lacks 17 of the 19 tasks: caltech101, " in outcome.err


def test_import_takes_all_parts_of_a_download(copy: Path, tmp_path: Path) -> None:
    parts = cut_in_two(copy, tmp_path)
    code, out = run("import", *parts, "--to", tmp_path / "to")
    assert code == 0
    assert f"imported 2 tasks into {tmp_path / 'to'}: cifar100, dtd" in out
    assert fingerprint(get_task("dtd"), tmp_path / "to") == fingerprint(get_task("dtd"), copy)


def test_import_goes_to_the_default_folder(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("import", copy)
    assert (tmp_path / "data/vtab-1k/cifar100/test.txt").is_file()


def test_fetch_names_tasks_repository_and_commit(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve(Hub({DATA_SET: {"vtab.zip": packed(copy)}})) as hub:
        code, out = run("fetch", "--to", tmp_path / "to", "--repo", REPO, "--endpoint", hub.address)
    assert code == 0
    assert f"imported 2 tasks into {tmp_path / 'to'} from {REPO} at 0123456789abcdef" in out


def test_fetch_passes_every_option_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    asked: list[tuple[Path, dict[str, object]]] = []

    def fetch(to: Path, **options: object) -> SimpleNamespace:
        asked.append((to, options))
        return SimpleNamespace(tasks=["dtd"], repo="a/b", commit="c")

    monkeypatch.setattr("shipbench.data.acquisition.fetch.fetch", fetch)
    run("fetch", "--to", tmp_path, "--repo", "a/b", "--revision", "v2", "--endpoint", "http://h")
    run("fetch")
    assert asked == [
        (tmp_path, {"repo": "a/b", "endpoint": "http://h", "revision": "v2"}),
        (Path("data/vtab-1k"), {"repo": "XiN0919/VTAB-1k", "endpoint": None, "revision": "main"}),
    ]


def test_inspect_shows_the_task(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIPBENCH_DATA", str(copy))
    sheet = tmp_path / "sheet.png"
    code, out = run("inspect", "cifar", "--grid", sheet)
    assert code == 0
    assert out.startswith("cifar100 (vtab-1k, Natural): 100 classes, format png")
    assert fingerprint(get_task("cifar100"), copy) in out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert rows[0] == ["0", "1", "0", "1", "1"]
    assert rows[-1] == ["all", "8", "2", "10", "6"]
    assert sheet.is_file()
    summary = summarise(get_task("cifar100"), copy)
    assert "training images: 12x10 to 12x10 pixels" in out
    for name, values in (("mean", summary.mean), ("std", summary.std)):
        numbers = ", ".join(f"{value:.4f}" for value in values)
        assert f"{name} of the training pixels (red, green, blue): {numbers}\n" in out
    monkeypatch.setattr("shipbench.cli.data._MOST_CLASSES", 1)
    rows = [line for line in run("inspect", "cifar")[1].splitlines() if line.startswith("│")]
    assert [row.split("│")[1].strip() for row in rows] == ["0", "... 99 more", "all"]


@pytest.mark.parametrize(("name", "words"), [("sheet.txt", "end it in .png"), ("to.png", "is a folder; name a file")])
def test_a_sheet_that_cannot_be_written_is_refused_before_images_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    (tmp_path / "to.png").mkdir()
    monkeypatch.setattr("shipbench.data.inspection.summary.summarise", lambda *_: pytest.fail("images were read"))
    with pytest.raises(InputError, match=words):
        run("inspect", "demo-tiny", "--grid", tmp_path / name)


def test_inspect_without_a_folder_names_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHIPBENCH_DATA", raising=False)
    with pytest.raises(InputError, match="--data DIR"):
        run("inspect", "dtd")


def test_nothing_heavy_is_imported_for_help() -> None:
    code = "import sys, shipbench.cli.data; print(sorted({'numpy', 'PIL', 'torch', 'joblib'} & set(sys.modules)))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"
