"""Fetching from a local hub: archives and loose folders, interruptions, damage, refusals."""

from __future__ import annotations

import io
import json
import shutil
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest

from shipbench.data import fingerprint
from shipbench.data.acquisition import fetch as fetching
from shipbench.data.acquisition.fetch import Fetched, fetch
from shipbench.errors import InputError, ShipbenchError
from shipbench.tasks import get_task
from tests.data.builders import left_in, vtab_tree
from tests.hub import COMMIT, DATA_SET, REPO, Hub, serve

TASKS = ("cifar100", "dtd")


@pytest.fixture
def copy(tmp_path: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a copy to serve; configure the client without proxies, without waits and with small blocks."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 250)
    return vtab_tree(tmp_path / "copy", tasks=TASKS)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return the folder to fetch into, which does not exist yet."""
    return tmp_path / "data" / "vtab-1k"


def packed(folder: Path, prefix: str = "vtab-1k/") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, prefix + path.relative_to(folder).as_posix())
    return stream.getvalue()


@pytest.fixture
def hub(copy: Path) -> Iterator[Hub]:
    """Serve one zip, as the default repository does."""
    with serve(Hub({DATA_SET: {"README.md": b"# VTAB-1k", "vtab-1k.zip": packed(copy)}})) as running:
        yield running


def test_fetches_imports_and_records_the_commit(hub: Hub, copy: Path, target: Path) -> None:
    fetched = fetch(target, repo=REPO, endpoint=hub.address)
    assert fetched == Fetched(REPO, "main", COMMIT, TASKS)
    assert left_in(target) == [*TASKS, "fetched.json"]
    assert left_in(target.parent) == ["vtab-1k"]
    record = json.loads((target / "fetched.json").read_text())
    assert record == {"repo": REPO, "revision": "main", "commit": COMMIT, "tasks": list(TASKS)}
    for name in TASKS:
        assert fingerprint(get_task(name), target) == fingerprint(get_task(name), copy)
    assert hub.downloads() == [None]


def test_the_hub_may_come_from_the_environment(hub: Hub, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.address}/")
    assert fetch(target, repo=REPO).commit == COMMIT


def test_a_dropped_connection_is_resumed_at_once(hub: Hub, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.cut = 1000

    def restore(seconds: float) -> None:
        hub.cut = None

    monkeypatch.setattr("time.sleep", restore)
    fetch(target, repo=REPO, endpoint=hub.address)
    assert hub.downloads() == [None, "bytes=1000-"]
    assert left_in(target) == [*TASKS, "fetched.json"]


def test_a_client_that_does_not_reconnect_is_called_until_nothing_arrives(
    hub: Hub, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = hub.repositories[DATA_SET]["vtab-1k.zip"]
    starts: list[int] = []

    def drop(url: str, stream: BinaryIO, *, resume_size: int, **_: object) -> None:
        starts.append(resume_size)
        if resume_size < 2000:
            stream.write(archive[resume_size : resume_size + 1000])
        raise ConnectionError("peer closed the connection")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", drop)
    with pytest.raises(ShipbenchError, match="peer closed the connection; try again to resume"):
        fetch(target, repo=REPO, endpoint=hub.address)
    assert starts == [0, 1000, 2000]


def test_the_next_call_resumes_an_interrupted_download(hub: Hub, copy: Path, target: Path) -> None:
    hub.cut = 1000
    with pytest.raises(ShipbenchError, match=r"cannot download someone/VTAB-1k .* try again") as caught:
        fetch(target, repo=REPO, endpoint=hub.address)
    assert not isinstance(caught.value, InputError)
    assert not target.exists()
    hub.cut = None
    hub.requests.clear()
    fetch(target, repo=REPO, endpoint=hub.address)
    assert hub.downloads() == ["bytes=1000-"]
    assert fingerprint(get_task("dtd"), target) == fingerprint(get_task("dtd"), copy)
    assert left_in(target.parent) == ["vtab-1k"]


def test_a_disk_without_room_is_refused_before_the_download(
    hub: Hub, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match=r"vtab-1k\.zip needs 0\.0 GB more in .*, where 0\.0 GB are free; make room"):
        fetch(target, repo=REPO, endpoint=hub.address)
    assert hub.downloads() == []
    assert not target.exists()


def test_a_complete_archive_is_not_downloaded_again(hub: Hub, target: Path) -> None:
    hub.repositories[DATA_SET] = {"vtab-1k.zip": b"PK not a zip"}
    for _ in range(2):
        with pytest.raises(InputError, match="damaged"):
            fetch(target, repo=REPO, endpoint=hub.address)
    assert hub.downloads() == [None]


def test_a_file_damaged_in_transit_is_refused(hub: Hub, target: Path) -> None:
    hub.announced = "0" * 64
    with pytest.raises(ShipbenchError, match=r"vtab-1k\.zip arrived damaged"):
        fetch(target, repo=REPO, endpoint=hub.address)
    assert not target.exists()
    hub.announced = None
    assert fetch(target, repo=REPO, endpoint=hub.address).tasks == TASKS


def test_an_archive_without_an_announced_hash_is_reported_as_unchecked(
    hub: Hub, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(target, repo=REPO, endpoint=hub.address)
    assert "SHA-256" not in capsys.readouterr().err
    hub.announced = "0" * 40
    fetch(target.with_name("other"), repo=REPO, endpoint=hub.address)
    messages = capsys.readouterr().err
    assert "the hub announces no SHA-256 of vtab-1k.zip; only its size was checked" in messages


def test_two_fetches_into_one_folder_take_turns(hub: Hub, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append, events, second = fetching._append, [], threading.Event()

    def fetch_too() -> None:
        try:
            fetch(target, repo=REPO, endpoint=hub.address)
        except InputError as error:
            events.append(str(error))

    other = threading.Thread(target=fetch_too)

    def hear(message: str) -> None:
        events.append(message)
        second.set()

    def append_slowly(*arguments: Any) -> None:
        events.append("append")
        if other.ident is None:
            other.start()
            assert second.wait(30)
        second.set()
        append(*arguments)

    monkeypatch.setattr("shipbench.runtime.files.say", hear)
    monkeypatch.setattr(fetching, "_append", append_slowly)
    assert fetch(target, repo=REPO, endpoint=hub.address).tasks == TASKS
    other.join()
    exists = f"{target / 'cifar100'} already exists; remove it or import into another folder"
    assert events == ["append", f"waiting for another process to fetch into {target}", exists]


def test_the_token_goes_to_the_hub_and_not_to_its_storage(hub: Hub, target: Path) -> None:
    with serve(Hub(hub.repositories)) as storage:
        hub.storage = storage.address
        fetch(target, repo=REPO, endpoint=hub.address)
        assert storage.downloads() == [None]
        assert all("authorization" not in headers for _, _, headers in storage.requests)
    assert all(headers.get("authorization") == "Bearer hf_secret" for _, _, headers in hub.requests)


def test_several_archives_are_imported_together(hub: Hub, tmp_path: Path, target: Path) -> None:
    hub.repositories[DATA_SET] = {f"{name}.zip": packed(vtab_tree(tmp_path / name, tasks=[name]), "") for name in TASKS}
    assert fetch(target, repo=REPO, endpoint=hub.address).tasks == TASKS
    assert left_in(target) == [*TASKS, "fetched.json"]


def test_loose_task_folders_are_imported_too(hub: Hub, copy: Path, target: Path) -> None:
    files = {path.relative_to(copy).as_posix(): path.read_bytes() for path in copy.rglob("dtd/**/*") if path.is_file()}
    hub.repositories[DATA_SET] = {"README.md": b"# VTAB-1k", **files}
    assert fetch(target, repo=REPO, endpoint=hub.address).tasks == ("dtd",)
    assert fingerprint(get_task("dtd"), target) == fingerprint(get_task("dtd"), copy)
    assert left_in(target) == ["dtd", "fetched.json"]


@pytest.mark.parametrize(("repo", "revision"), [("someone/else", "main"), (REPO, "v2")])
def test_a_missing_repository_or_revision_raises_one_sentence(hub: Hub, target: Path, repo: str, revision: str) -> None:
    with pytest.raises(ShipbenchError, match=f"cannot download {repo}") as caught:
        fetch(target, repo=repo, endpoint=hub.address, revision=revision)
    assert "\n" not in str(caught.value)


def test_an_empty_repository_is_refused(hub: Hub, target: Path) -> None:
    hub.repositories[DATA_SET] = {}
    with pytest.raises(ShipbenchError, match="is empty"):
        fetch(target, repo=REPO, endpoint=hub.address)


def test_a_repository_without_tasks_is_refused(hub: Hub, target: Path) -> None:
    hub.repositories[DATA_SET] = {"README.md": b"# Something else"}
    with pytest.raises(InputError, match="holds no VTAB-1k task"):
        fetch(target, repo=REPO, endpoint=hub.address)


def test_an_unreachable_hub_raises_one_sentence(copy: Path, target: Path) -> None:
    with pytest.raises(ShipbenchError, match="cannot download"):
        fetch(target, repo=REPO, endpoint="http://127.0.0.1:9")


def test_tasks_that_the_target_already_has_are_not_downloaded(hub: Hub, target: Path) -> None:
    (target / "dtd").mkdir(parents=True)
    with pytest.raises(InputError, match="already exists"):
        fetch(target, repo=REPO, endpoint=hub.address)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("location", "sent"),
    [("https://hub.test/b", True), ("https://storage.test/b", False), ("http://hub.test/b", False)],
)
def test_the_token_goes_to_the_hub_alone_and_encrypted(
    monkeypatch: pytest.MonkeyPatch, location: str, sent: bool
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert ("authorization" in fetching._headers("https://hub.test/a", location)) is sent
