"""``shipbench push`` and ``predict hf:USER/REPO``, against a hub on this machine."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from huggingface_hub import constants

from shipbench import RunSpec, load_results, run
from shipbench.errors import InputError
from shipbench.results.store import Store
from shipbench.runs import hub as hub_client
from shipbench.runs import program
from shipbench.runs.merged import export_merged
from shipbench.runs.publication import model_upload, results_upload
from tests.cli.conftest import Trained
from tests.conftest import Shipbench
from tests.hub import Hub, card_of
from tests.results.test_store import make_record

pytestmark = pytest.mark.usefixtures("quiet_tracer")


def test_the_results_folder_becomes_a_data_set(
    shipbench: Shipbench, trained: Trained, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained.results, tmp_path / "results")
    private = ("checkpoints/x", "claims/x", "runs/.x", "plans/x", "slurm/x", "wandb/x", "tensorboard/x", "x.txt")
    for name in (*private, "study.toml.lock", "features/x.parquet", "tuning/x.json"):
        (tmp_path / "results" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "results" / name).touch()
    monkeypatch.chdir(tmp_path)
    Store(Path("results")).path("predictions", trained.runs["lora"]).unlink()
    outcome = shipbench("push", trained.runs["lora"], "someone/a", "--checkpoint", "random", "--results")
    assert outcome.code == 0, outcome.err
    assert f"{hub.address}/datasets/someone/a: " in outcome.out
    files = hub.repositories["datasets/someone/a"]
    header, _ = card_of(hub, "datasets/someone/a")
    tables = {"runs": "records.parquet", "history": "history/*.parquet", "predictions": "predictions/*.parquet"}
    assert {config["config_name"]: config["data_files"] for config in header["configs"]} == tables  # type: ignore[attr-defined]
    # Settings of one method are columns of all rows.
    assert pd.read_parquet(io.BytesIO(files["records.parquet"])).equals(load_results(trained.results))
    assert {name.split("/")[0] for name in files} == {
        *("README.md", "records.parquet", "study.toml.lock"),
        *("runs", "history", "predictions", "weights", "features", "tuning"),
    }
    assert not files.keys() & set(private)
    for name, content in files.items():
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(content)
    assert load_results(tmp_path / "copy").equals(load_results(trained.results))
    assert "the run keeps no predictions" in card_of(hub, "models/someone/a")[1]
    with pytest.raises(InputError, match="nothing holds no records to upload"):
        results_upload(Store(tmp_path / "nothing"), "someone/a")


def test_nothing_but_results_is_uploaded(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    store.write(make_record())
    weights = store.path("weights", "a1")
    weights.parent.mkdir()
    (weights.parent / "notes.txt").write_text("mine")
    (tmp_path / "key").write_text("secret")
    assert sorted(results_upload(store, "someone/a").files) == ["README.md", "records.parquet", "runs/a1.parquet"]
    weights.symlink_to(tmp_path / "key")
    with pytest.raises(InputError, match=r"a1\.safetensors is a link to .*key, outside the results folder"):
        results_upload(store, "someone/a")


def test_what_a_backbone_cannot_be_merged_with_is_pushed_as_a_program(
    trained: Trained, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The norms of test_vit4 have no biases, and SSF shifts their outputs."""
    # Tracing nine blocks takes seconds.
    monkeypatch.setattr(program, "_program", lambda _: torch.export.export(torch.nn.Identity(), (torch.zeros(1),)))
    common: dict[str, Any] = {"backbone": "test_vit4", "checkpoint": "random", "precision": "fp32", "device": "cpu"}
    spec = RunSpec("ssf", f"folder:{trained.photographs}", overrides={"image_size": 32, "epochs": 1}, **common)
    record, store = run(spec, results=tmp_path / "r"), Store(tmp_path / "r")
    with pytest.raises(InputError, match="needs a bias in fc_norm, which this backbone does not have"):
        export_merged(store, record.run_id, tmp_path / "m.safetensors", checkpoint="random")
    upload = model_upload(store, record.run_id, "someone/a", tmp_path)
    assert upload.replaced == ("model.safetensors",)
    assert {"shipbench.safetensors", "model.pt2"} <= upload.files.keys()
    assert "model.safetensors" not in upload.files
    assert json.loads(upload.files["config.json"])["run_id"] == record.run_id  # type: ignore[arg-type]
    assert b"torch.export.load" in upload.files["README.md"]  # type: ignore[operator]


def test_a_trial_that_was_not_tested_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(make_record(run_id="trial", protocol="tuning"))
    with pytest.raises(InputError, match="run trial is a trial of a tuning, which never opens the test split"):
        model_upload(store, "trial", "someone/a", tmp_path)


def test_names_that_the_hub_allows_are_accepted() -> None:
    for name in ("_lab/_model_", f"{'u' * 60}/{'m' * 96}"):
        hub_client.check_name(name)
    for name in ("lab/.model", "lab/model-", "lab/a..b", "lab/model.git", f"lab/{'m' * 97}"):
        with pytest.raises(InputError, match="is not USER/REPO"):
            hub_client.check_name(name)


def test_a_model_of_another_form_that_was_pushed_before_is_deleted(hub: Hub) -> None:
    hub.repositories["models/someone/a"] = {"model.pt2": b"old", "notes.md": b"kept"}
    for _ in range(2):
        files = {"model.safetensors": b"new"}
        hub_client.upload(hub_client.Upload("someone/a", "model", "a run", files, replaced=("model.pt2",)))
        assert hub.repositories["models/someone/a"] == {"notes.md": b"kept", **files}


def test_a_missing_image_is_refused_before_a_run_is_downloaded(shipbench: Shipbench, hub: Hub, tmp_path: Path) -> None:
    outcome = shipbench("predict", "hf:someone/a", tmp_path / "missing.jpg")
    assert outcome.code == 2
    assert "missing.jpg does not exist; name image files" in outcome.err
    assert not hub.requests


def test_a_dry_run_contacts_no_hub_and_prints_the_card(
    shipbench: Shipbench, trained: Trained, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.chdir(trained.results.parent)
    # The option after --results without a folder is no folder.
    outcome = shipbench("push", trained.runs["lora"], "someone/a", "--results", "--dry-run")
    assert outcome.code == 0, outcome.err
    assert "  model.safetensors: " in outcome.out
    assert "  predictions/: " in outcome.out
    assert 'timm.create_model("hf-hub:someone/a", pretrained=True)' in outcome.out
    assert not hub.requests


def scoped(*names: str, may: str = "repo.write") -> dict[str, object]:
    """Describe a token with a permission for users and repositories, given as ``TYPE NAME``."""
    pairs = [name.split() for name in names]
    scopes = [{"entity": {"type": kind, "name": name}, "permissions": ["repo.read", may]} for kind, name in pairs]
    return {"token": {"role": "fineGrained", "fineGrained": {"scoped": scopes}}}


@pytest.mark.parametrize(
    ("repo", "changes", "message"),
    [
        ("insects", {}, "'insects' is not USER/REPO"),
        ("some one/insects", {}, "is not USER/REPO"),
        ("someone/a--b", {}, "is not USER/REPO"),
        ("someone/insects", {"token": {"role": "read"}}, "the token of someone has no write permission"),
        ("someone/insects", scoped("user else"), "the token of someone has no write permission"),
        ("someone/insects", scoped("user someone", may="x"), "has no write permission for the model someone/insects;"),
        ("someone/insects", scoped("dataset someone/insects"), "no write permission for the model someone/insects;"),
        ("other/insects", {}, "who is not a member of other; push to someone/insects"),
        ("lab/insects", {"organisations": {"lab": "read"}}, "someone may only read in the organisation lab"),
        ("someone/insects", {"refused": {"whoami": 401}}, "the hub does not accept the token"),
    ],
)
def test_what_may_not_be_written_is_refused_before_an_upload(
    shipbench: Shipbench, trained: Trained, hub: Hub, repo: str, changes: dict[str, object], message: str
) -> None:
    for name, value in changes.items():
        setattr(hub, name, value)
    outcome = shipbench("push", trained.runs["lora"], repo, "--results", trained.results, "--checkpoint", "random")
    assert (outcome.code, message in outcome.err) == (2, True), outcome.err
    assert outcome.err.count("\n") == 1
    assert set(hub.asked) <= {"GET /api/whoami-v2"}


def test_a_token_for_the_model_alone_uploads_neither_it_nor_the_results(
    shipbench: Shipbench, trained: Trained, hub: Hub
) -> None:
    command = ("push", trained.runs["lora"], "someone/a", "--results", trained.results, "--checkpoint", "random")
    for scopes, message in (
        (("model someone/a", "dataset someone/other"), "for the data set someone/a;"),
        (("space someone/a",), "for the model and the data set someone/a;"),
    ):
        hub.token = scoped(*scopes)["token"]
        outcome = shipbench(*command, "--with-results")
        assert (outcome.code, f"has no write permission {message}" in outcome.err) == (2, True), outcome.err
        assert not hub.repositories
    for scopes in (("model someone/a", "dataset someone/a"), ("user someone",)):
        hub.token = scoped(*scopes)["token"]
        hub_client.check_may_write("someone/a", ("model", "dataset"))


def test_a_missing_token_a_missing_run_and_an_unusable_model_are_refused_before_an_upload(
    shipbench: Shipbench, trained: Trained, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = ("someone/a", "--results", trained.results)
    assert "there is no run 'nothing'" in shipbench("push", "nothing", *results).err
    outcome = shipbench("push", trained.runs["full"], *results)
    assert (outcome.code, "keeps no weights" in outcome.err) == (2, True)
    # Records tell that, so no hub is asked.
    assert not hub.asked
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    outcome = shipbench("push", trained.runs["lora"], *results, "--checkpoint", "random")
    assert (outcome.code, "there is no token for the hub" in outcome.err) == (2, True)
    assert not hub.repositories


def test_organisations_and_scoped_tokens_that_may_write_are_accepted(
    shipbench: Shipbench, trained: Trained, hub: Hub
) -> None:
    hub.organisations = {"lab": "contributor"}
    for entity, repo in (
        ("org lab", "lab/insects"),
        ("model someone/own", "someone/own"),
        ("model models/lab/bugs", "lab/bugs"),
    ):
        hub.token = scoped(entity)["token"]
        outcome = shipbench(
            *("push", trained.runs["lora"], repo, "--results", trained.results, "--checkpoint", "random")
        )
        assert outcome.code == 0, outcome.err
        assert f"models/{repo}" in hub.repositories


@pytest.mark.parametrize("role", ["write", "admin", "contributor"])
def test_every_role_that_may_write_in_an_organisation_is_accepted(hub: Hub, role: str) -> None:
    hub.organisations = {"lab": role}
    hub_client.check_may_write("lab/insects", ("model",))
    assert hub.asked == ["GET /api/whoami-v2"]


def test_a_hub_that_refuses_or_fails_is_one_sentence(shipbench: Shipbench, trained: Trained, hub: Hub) -> None:
    command = ("push", trained.runs["lora"], "someone/a", "--results", trained.results, "--checkpoint", "random")
    hub.refused = {"repos/create": 403}
    outcome = shipbench(*command)
    assert (outcome.code, "the hub refuses it" in outcome.err) == (2, True), outcome.err
    hub.refused = {"/commit/": 400}
    outcome = shipbench(*command)
    assert (outcome.code, "cannot upload someone/a to the hub" in outcome.err) == (1, True), outcome.err
    assert outcome.err.count("\n") == 1
    hub.refused = {}
    # The repository exists since the first upload, which failed.
    assert shipbench(*command).code == 0


def test_a_repository_without_a_run_is_refused(shipbench: Shipbench, trained: Trained, hub: Hub) -> None:
    hub.repositories["models/someone/other"] = {"README.md": b""}
    hub.gated = "locked/a"
    for name, message in (
        ("hf:someone/nothing", "does not exist on the hub or is private"),
        ("hf:someone/other", "holds no shipbench.safetensors"),
        ("hf:someone", "'someone' is not USER/REPO"),
        ("hf:someone/other@v2", "is not a revision of someone/other"),
        ("hf:locked/a", f"has conditions to accept; do so at {hub.address}/locked/a"),
    ):
        outcome = shipbench("predict", name, trained.photograph)
        assert (outcome.code, message in outcome.err) == (2, True), outcome.err
    hub.refused = {"/resolve/": 400}
    outcome = shipbench("predict", "hf:someone/other", trained.photograph)
    assert (outcome.code, "cannot download hf:someone/other" in outcome.err) == (1, True), outcome.err
