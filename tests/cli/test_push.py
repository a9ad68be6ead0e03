"""``shipbench push`` and ``predict hf:USER/REPO``, against a hub on this machine."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import torchvision
import yaml
from huggingface_hub import constants, file_download
from PIL import Image
from safetensors import safe_open

from shipbench import RunSpec, load_results, run
from shipbench.backbones.licence import licence_of
from shipbench.backbones.pinned import DEMO_BACKBONE
from shipbench.data.framing import resize
from shipbench.errors import InputError
from shipbench.record import ACCURACY, MEAN_PER_CLASS, RunRecord
from shipbench.results.loading import load_predictions
from shipbench.results.store import RunTables, Store
from shipbench.runs import hub as hub_client
from shipbench.runs import program, publication
from shipbench.runs.export import load_exported
from shipbench.runs.finished import trained_record
from shipbench.runs.merged import export_merged
from shipbench.runs.model_card import Card, model_card
from shipbench.runs.publication import model_upload, results_upload
from shipbench.statistics import bootstrap_interval
from shipbench.tasks.catalogue import Resize
from tests.cli.conftest import Trained
from tests.cli.without_shipbench import run_without_shipbench
from tests.conftest import Shipbench
from tests.hub import Hub, serve
from tests.methods.exports import probabilities_of
from tests.results.test_store import make_record

pytestmark = pytest.mark.usefixtures("quiet_tracer")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub whose token is set, with an empty cache of downloads."""
    monkeypatch.setenv("HF_TOKEN", "good")
    # The chunked storage of the hub has a client and a server of its own; without it, files go through Git LFS.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    with serve(Hub()) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        # The client reads the variable when it is imported, which comes later in a process that has it from the start.
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        template = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        for module in (constants, file_download):
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        yield hub


def card_of(hub: Hub, name: str) -> tuple[dict[str, object], str]:
    """Return the header and the text of a repository's card."""
    _, header, text = hub.repositories[name]["README.md"].decode().split("---\n", 2)
    return yaml.safe_load(header), text


def record_of(trained: Trained) -> RunRecord:
    """Return the record of the LoRA run."""
    return trained_record(Store(trained.results), trained.runs["lora"])


def example_of(card: str) -> str:
    """Return the Python code of a card; its last line prints the classes and probabilities as JSON instead."""
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    lines = code.splitlines()
    assert 4 <= len([line for line in lines if not line.startswith(("import", "from")) and line]) <= 5
    assert lines[-1] == "print(probabilities.topk(3))"
    return "\n".join([*lines[:-1], "import json; print(json.dumps(probabilities.tolist()))"])


@pytest.mark.parametrize(
    ("method", "form", "library"), [("vpt-deep", "model.pt2", "pytorch"), ("peft-lora", "model.safetensors", "timm")]
)
def test_the_example_of_the_card_predicts_as_the_run_does_without_shipbench(
    shipbench: Shipbench, trained: Trained, hub: Hub, tmp_path: Path, method: str, form: str, library: str
) -> None:
    run = (trained.runs[method], "someone/insects", "--results", trained.results, "--checkpoint", "random")
    outcome = shipbench("push", *run)
    assert outcome.code == 0, outcome.err
    assert outcome.err.splitlines()[-1].startswith("next: shipbench predict hf:someone/insects IMAGE...")
    assert set(hub.repositories) == {"models/someone/insects"}
    assert hub.private == {"models/someone/insects": False}
    files = hub.repositories["models/someone/insects"]
    assert set(files) == {"README.md", "config.json", "record.json", "shipbench.safetensors", form}
    header, card = card_of(hub, "models/someone/insects")
    assert header["library_name"] == library
    photograph = trained.photograph
    outcome = shipbench("predict", "hf:someone/insects", photograph, "--checkpoint", "random", "--json")
    assert outcome.code == 0, outcome.err
    expected = {row["name"]: row["probability"] for row in json.loads(outcome.out)["images"][0]["classes"]}
    shutil.copyfile(photograph, tmp_path / "photo.jpg")
    cache = {"HF_HUB_CACHE": str(tmp_path / "other-cache"), "HF_HUB_DISABLE_XET": "1"}
    printed = run_without_shipbench(example_of(card), tmp_path, HF_ENDPOINT=hub.address, **cache)
    probabilities = dict(zip(("ant", "bee", "wasp"), json.loads(printed), strict=True))
    assert probabilities == pytest.approx(expected, abs=1e-4)


def test_timm_creates_the_pushed_model_of_a_convolutional_backbone_with_its_transform(
    shipbench: Shipbench, trained: Trained, hub: Hub, tmp_path: Path
) -> None:
    run = (trained.runs["convolutional"], "someone/a", "--results", trained.results, "--checkpoint", "random")
    assert shipbench("push", *run).code == 0
    for name, content in hub.repositories["models/someone/a"].items():
        (tmp_path / name).write_bytes(content)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    transform: Any = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with torch.no_grad():
        probabilities = model(transform(Image.open(trained.photograph)).unsqueeze(0)).softmax(dim=1)
    exported = load_exported(tmp_path / "shipbench.safetensors", checkpoint="random")
    torch.testing.assert_close(probabilities, probabilities_of(exported, [trained.photograph]), rtol=1e-4, atol=1e-5)
    assert exported.resize == "crop"
    assert model.pretrained_cfg["label_names"] == ["ant", "bee", "wasp"]
    assert "64 pixels, resized by `crop`" in (tmp_path / "README.md").read_text()


def test_the_record_fills_the_card(shipbench: Shipbench, trained: Trained, hub: Hub, tmp_path: Path) -> None:
    run_id = trained.runs["lora"]
    line = ("push", run_id[:10], "someone/a", "--results", trained.results, "--checkpoint", "random")
    outcome = shipbench(*line, "--with-results", "--private")
    assert outcome.code == 0, outcome.err
    assert hub.private == {"models/someone/a": True, "datasets/someone/a": True}
    header, card = card_of(hub, "models/someone/a")
    record = load_results(trained.results).set_index("run_id").loc[run_id]
    predictions = load_predictions(trained.results, [run_id])
    interval = bootstrap_interval((predictions["label"] == predictions["predicted"]).to_numpy(float))
    for words in (
        f"| test accuracy | **{100 * record['final_test_acc']:.1f} %** |",
        f"| 95 % interval of it | {100 * interval.low:.1f} to {100 * interval.high:.1f} % |",
        "| test images | 6 |",
        "| training images | 24 |",
        f"| data fingerprint | `{record['data_fingerprint']}` |",
        "| draw | train 18, val 6 of train, test 6 held out of train |",
        "Classes in the order of their numbers, from 0: ant, bee, wasp.",
        "The backbone is a random initialisation",
        f"weights `{record['backbone_sha256']}`",
        "| backbone checkpoint | `random` |",
        f": {record['trainable_params']:,} trained parameters, {record['trainable_params_without_head']:,} without the",
    ):
        assert words in card
    assert "license" not in header
    assert header["model-index"][0]["results"][0]["metrics"][0]["value"] == pytest.approx(record["final_test_acc"])  # type: ignore[index]
    stored = json.loads(hub.repositories["models/someone/a"]["record.json"])
    assert stored["run_id"] == run_id
    assert "host" not in stored
    assert stored["stated_acc"] is None
    config = json.loads(hub.repositories["models/someone/a"]["config.json"])
    assert (config["num_classes"], config["model_args"]) == (3, {"img_size": 64})
    assert config["pretrained_cfg"]["fixed_input_size"]
    assert (config["pretrained_cfg"]["mean"], config["pretrained_cfg"]["std"]) == ([0.4, 0.5, 0.6], [0.2, 0.25, 0.3])
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(hub.repositories["models/someone/a"]["shipbench.safetensors"])
    with safe_open(weights, "pt") as stream:
        assert stream.metadata()["run_id"] == run_id


@pytest.mark.parametrize(
    ("backbone", "checkpoint", "metadata", "words"),
    [
        (
            "vit_base_patch16_224.augreg_in21k",
            "",
            {"license": "apache-2.0", "base_model": "timm/vit_base_patch16_224.augreg_in21k"},
            "have the licence apache-2.0.",
        ),
        # The hub refuses names of licences that it does not have.
        (
            "vit_small_patch16_dinov3.lvd1689m",
            "",
            {
                "license": "other",
                "license_name": "dinov3-license",
                "base_model": "timm/vit_small_patch16_dinov3.lvd1689m",
            },
            "have the licence dinov3-license.",
        ),
        ("dla60_res2net", "", {}, "timm names no licence"),
        (DEMO_BACKBONE, "", {"license": ["mit", "apache-2.0"]}, "Licences: "),
        ("vit_base_patch16_224.augreg_in21k", "own.pth", {}, "the file `own.pth`, whose licence is not recorded."),
    ],
)
def test_the_card_names_the_licence_of_the_backbone(
    trained: Trained, backbone: str, checkpoint: str, metadata: dict[str, object], words: str
) -> None:
    licence = licence_of(backbone, checkpoint)
    text = model_card(Card("someone/a", record_of(trained), None, licence, True, "squash", ()))
    header = yaml.safe_load(text.split("---\n")[1])
    assert {key: value for key, value in header.items() if key.startswith(("license", "base"))} == metadata
    assert words in text


def test_the_card_names_each_accuracy() -> None:
    record = make_record(final_test_acc=0.25, best_test_acc=0.75, chance_acc=0.125)
    record = replace(record, headline_metric=MEAN_PER_CLASS, final_test_mean_class_acc=0.375)
    record = replace(record, num_classes=2, n_train=8, n_test=5, shots=4)
    licence = licence_of("test_vit", "random")
    text = model_card(Card("someone/a", record, None, licence, True, "squash", ("name",) * 21))
    header = yaml.safe_load(text.split("---\n")[1])
    metric = {"type": "accuracy", "value": 0.25, "name": "test accuracy"}
    assert header["model-index"][0]["results"][0]["metrics"] == [metric]
    for row in (
        "mean per-class accuracy | **37.5 %**",
        "test accuracy | 25.0 %",
        "95 % interval of it | not known: the run keeps no predictions",
        "majority-class accuracy | 12.5 %",
        "test images | 5",
        "training images | 8, 4 per class",
    ):
        assert f"| {row} |" in text
    assert "in `config.json` (`label_names`)" in text
    # torch refuses to name more classes than there are.
    assert "print(probabilities.topk(2))" in text
    single = Card("someone/a", record, bootstrap_interval([1.0]), licence, True, "squash", ())
    assert "| 95 % interval of it | not known: too few images |" in model_card(single)


def test_the_interval_is_that_of_the_metric_of_the_task(tmp_path: Path) -> None:
    labels = np.repeat([0, 1], [360, 40])
    right = np.concatenate([np.arange(360) < 342, np.arange(40) < 20])
    tables = RunTables(predictions={"label": labels, "predicted": np.where(right, labels, 1 - labels)})
    means = {"final_test_acc": float(right.mean()), "final_test_mean_class_acc": 0.725}
    licence, bounds = licence_of("test_vit", "random"), []
    for metric in (MEAN_PER_CLASS, ACCURACY):
        record = make_record(run_id=metric, headline_metric=metric, **means)
        Store(tmp_path).write(record, tables)
        interval = publication._interval(Store(tmp_path), record)
        assert interval is not None
        assert interval.mean == pytest.approx(record.headline_acc)
        text = model_card(Card("someone/a", record, interval, licence, True, "squash", ()))
        bounds += re.findall(r"accuracy \| \*\*(.*) %\*\* \|\n\| 95 % interval of it \| (.*) to (.*) %", text)
    for mean, low, high in bounds:
        assert float(low) < float(mean) < float(high)
    assert [mean for mean, *_ in bounds] == ["72.5", "90.5"]


def test_the_card_prints_every_name_and_command_as_it_is(trained: Trained) -> None:
    settings = {"target_modules": "q|v"}
    record = replace(record_of(trained), checkpoint="my net.npz", settings=settings)
    licence = licence_of("test_vit", record.checkpoint)
    names = ("<other>", "*", "a_b")
    text = model_card(Card("someone/a", record, None, licence, True, "squash", names))
    assert "from 0: \\<other>, \\*, a_b." in text
    assert '| settings | `{"target_modules": "q\\|v"}` |' in text
    assert "\nshipbench predict hf:someone/a photo.jpg --checkpoint 'my net.npz'\n" in text
    # The export of a run that trained every weight holds the whole model.
    whole = replace(record, trainable_params=record.total_params)
    text = model_card(Card("someone/a", whole, None, licence, True, "squash", ()))
    assert "\nshipbench predict hf:someone/a photo.jpg\n" in text


@pytest.mark.parametrize("how", ["squash", "crop"])
def test_the_card_of_a_program_frames_photographs_as_predict_does(trained: Trained, how: Resize) -> None:
    licence = licence_of("test_vit", "random")
    text = model_card(Card("someone/a", record_of(trained), None, licence, False, how, ("name",) * 21))
    (framed,) = re.findall(r"pixels = F.to_tensor\((.*)\)\n", text)
    photo = Image.open(trained.photograph).convert("RGB")
    pixels = np.asarray(eval(framed, {"F": torchvision.transforms.functional, "photo": photo}))
    assert np.array_equal(pixels, resize(photo, 64, how))
    assert "in `config.json` (`class_names`)" in text


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


def scoped(name: str, *permissions: str) -> dict[str, object]:
    """Describe a token with permissions for one user or repository."""
    scope = {"entity": {"name": name}, "permissions": list(permissions)}
    return {"token": {"role": "fineGrained", "fineGrained": {"scoped": [scope]}}}


@pytest.mark.parametrize(
    ("repo", "changes", "message"),
    [
        ("insects", {}, "'insects' is not USER/REPO"),
        ("some one/insects", {}, "is not USER/REPO"),
        ("someone/a--b", {}, "is not USER/REPO"),
        ("someone/insects", {"token": {"role": "read"}}, "the token of someone has no write permission"),
        ("someone/insects", scoped("else", "repo.write"), "the token of someone has no write permission"),
        ("someone/insects", scoped("someone", "repo.content.read"), "the token of someone has no write permission"),
        ("other/insects", {}, "who is no member of other; push to someone/insects"),
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
    scope: dict[str, Any] = {"permissions": ["repo.content.read", "repo.write"]}
    hub.organisations = {"lab": "contributor"}
    hub.token = {"role": "fineGrained", "fineGrained": {"scoped": [scope]}}
    for entity, repo in (("lab", "lab/insects"), ("someone/own", "someone/own"), ("models/lab/bugs", "lab/bugs")):
        scope["entity"] = {"name": entity}
        outcome = shipbench(
            *("push", trained.runs["lora"], repo, "--results", trained.results, "--checkpoint", "random")
        )
        assert outcome.code == 0, outcome.err
        assert f"models/{repo}" in hub.repositories


@pytest.mark.parametrize("role", ["write", "admin", "contributor"])
def test_every_role_that_may_write_in_an_organisation_is_accepted(hub: Hub, role: str) -> None:
    hub.organisations = {"lab": role}
    hub_client.check_may_write("lab/insects")
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
        ("hf:someone/other@v2", "is no revision of someone/other"),
        ("hf:locked/a", f"has conditions to accept; do so at {hub.address}/locked/a"),
    ):
        outcome = shipbench("predict", name, trained.photograph)
        assert (outcome.code, message in outcome.err) == (2, True), outcome.err
    hub.refused = {"/resolve/": 400}
    outcome = shipbench("predict", "hf:someone/other", trained.photograph)
    assert (outcome.code, "cannot download hf:someone/other" in outcome.err) == (1, True), outcome.err
