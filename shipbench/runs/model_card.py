"""The cards (README.md) of what ``shipbench push`` uploads, filled in from the record."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import yaml

from shipbench.backbones.licence import Licence
from shipbench.counts import counted
from shipbench.methods import get_method
from shipbench.record import MEAN_PER_CLASS, RunRecord
from shipbench.runs.finished import checkpoint_to_predict
from shipbench.statistics import Interval
from shipbench.tasks.catalogue import Resize

_TIMM = """\
```python
import timm, torch
from PIL import Image, ImageOps

model = timm.create_model("hf-hub:{repo}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")
probabilities = model(transform(photo).unsqueeze(0)).softmax(dim=1)[0]
print(probabilities.topk({top}))
```
"""
_PROGRAM = """\
```python
import torch, torchvision.transforms.functional as F
from huggingface_hub import hf_hub_download
from PIL import Image, ImageOps

model = torch.export.load(hf_hub_download("{repo}", "model.pt2")).module()
photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")
pixels = F.to_tensor({framed})
probabilities = model(pixels.unsqueeze(0)).softmax(dim=1)[0]
print(probabilities.topk({top}))
```

The program takes pixels (B, 3, {size}, {size}) in [0, 1] and normalises them itself. torch {torch} wrote it.
"""
# shipbench scales them; Pillow cuts off what is above 255.
_DEEP = (
    "Scale photographs with 16-bit grey values to 8 bits first, as the run did: `convert` would turn most of them "
    "white.\n"
)
_FRAMED = {
    "squash": "F.resize(photo, [{size}, {size}], F.InterpolationMode.BICUBIC)",
    "crop": "F.center_crop(F.resize(photo, {size}, F.InterpolationMode.BICUBIC), [{size}, {size}])",
}
_SHOWN_CLASSES = 20
RECORDS = "records.parquet"
"""The file of an uploaded results folder with all of its records."""


@dataclass(frozen=True)
class Card:
    """The facts of a model card.

    ``interval`` is of the accuracy by the record's metric, as a fraction, and None without predictions. ``merged``
    tells a timm model from a program. ``class_names`` are in the order of the classes' numbers, or empty.
    """

    repo: str
    record: RunRecord
    interval: Interval | None
    licence: Licence
    merged: bool
    resize: Resize
    class_names: Sequence[str]


def model_card(card: Card) -> str:
    """Return the model card in Markdown with the hub's YAML header."""
    record = card.record
    title = f"{get_method(record.method).title} on {record.task}"
    sections = [
        f"---\n{_yaml(_header(card, title))}---\n\n# {title}\n",
        f"A `{record.backbone}` adapted by {get_method(record.method).title} to the task {record.task} "
        f"({record.num_classes} classes): {record.trainable_params:,} trained parameters, "
        f"{record.trainable_params_without_head:,} without the head.\n",
        f"## Accuracy\n\n{_accuracy(card)}",
        f"## Use\n\n{_use(card)}",
        f"## Data and protocol\n\n{_protocol(card)}",
        f"## Licence\n\n{card.licence.sentence} The files of this repository hold these weights or depend on them.\n",
    ]
    return "\n".join(sections)


def results_card(repo: str, runs: int, kinds: Collection[str]) -> str:
    """Return the card of an uploaded results folder with ``runs`` records; ``kinds`` are the names of its folders."""
    tables = [kind for kind in ("runs", "history", "predictions") if kind in kinds]
    files = {kind: RECORDS if kind == "runs" else f"{kind}/*.parquet" for kind in tables}
    configs = [{"config_name": kind, "data_files": place} for kind, place in files.items()]
    header, records = _yaml({"tags": ["shipbench"], "configs": configs}), counted(runs, "record")
    return f"""---
{header}---

# Results of shipbench

{records}, one Parquet file each: `runs/` holds a row per run, `history/` a row per evaluated epoch and split,
`predictions/` a row per test image, `weights/` the trained tensors. `{RECORDS}` holds all records as one table.

```python
from huggingface_hub import snapshot_download
from shipbench import load_results

frame = load_results(snapshot_download("{repo}", repo_type="dataset"))
```
"""


def _header(card: Card, title: str) -> dict[str, object]:
    record, licence = card.record, card.licence
    metric = {"type": "accuracy", "value": round(record.final_test_acc, 6), "name": "test accuracy"}
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": record.task, "type": record.suite},
        "metrics": [metric],
    }
    return {
        **licence.metadata,
        **({"base_model": licence.base_model} if licence.base_model else {}),
        "library_name": "timm" if card.merged else "pytorch",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "shipbench", record.method],
        "model-index": [{"name": title, "results": [result]}],
    }


def _accuracy(card: Card) -> str:
    record, interval = card.record, card.interval
    bounds = "not known: the run keeps no predictions"
    if interval is not None:
        known = interval.low == interval.low
        bounds = f"{100 * interval.low:.1f} to {100 * interval.high:.1f} %" if known else "not known: too few images"
    by_class = record.headline_metric == MEAN_PER_CLASS
    rows = [
        ("mean per-class accuracy" if by_class else "test accuracy", f"**{100 * record.headline_acc:.1f} %**"),
        ("95 % interval of it", bounds),
        ("test accuracy", f"{100 * record.final_test_acc:.1f} %" if by_class else ""),
        ("test images", str(record.n_test)),
        ("majority-class accuracy", f"{100 * record.chance_acc:.1f} %"),
    ]
    notes = (
        "The accuracy is that after the last epoch of one training run. The interval is a bootstrap over the test "
        f"images{' of each class' if by_class else ''}; it leaves out the variation between trainings.\n"
    )
    return f"{_table(rows)}\n{notes}"


def _use(card: Card) -> str:
    record, size = card.record, card.record.image_size
    values = {"repo": card.repo, "size": size, "top": min(3, record.num_classes)}
    if card.merged:
        example = _TIMM.format(**values)
    else:
        framed = _FRAMED[card.resize].format(size=size)
        example = _PROGRAM.format(**values, framed=framed, torch=version("torch"))
    weights = checkpoint_to_predict(record)
    option = f" --checkpoint {shlex.quote(weights)}" if weights else ""
    command = f"```sh\n{_installation(record)}\nshipbench predict hf:{card.repo} photo.jpg{option}\n```\n"
    return f"{_classes(card)}\n{example}\n{_DEEP}\nWith shipbench:\n\n{command}"


def _installation(record: RunRecord) -> str:
    """Return the command that installs shipbench and what the method of a run needs beside it."""
    packages = ["shipbench[peft]" if record.peft_version else "shipbench"]
    if record.method_package:
        packages.append(record.method_package.rpartition(" ")[0])
    return f"pip install {shlex.join(packages)}"


def _classes(card: Card) -> str:
    names, key = card.class_names, "label_names" if card.merged else "class_names"
    if not names:
        return "Classes are numbered as in the data set.\n"
    if len(names) > _SHOWN_CLASSES:
        return f"The names of the {len(names)} classes are in `config.json` (`{key}`), in the order of their numbers.\n"
    return f"Classes in the order of their numbers, from 0: {', '.join(map(_literal, names))}.\n"


def _literal(text: str) -> str:
    """Return ``text`` without what Markdown would take for mark-up."""
    return re.sub(r"[\\`*<\[~]", r"\\\g<0>", text)


def _protocol(card: Card) -> str:
    record = card.record
    settings = json.dumps(record.settings, sort_keys=True)
    return _table(
        [
            ("run", f"`{record.run_id}`, seed {record.seed}, {record.created[:10]}"),
            ("task", f"{record.task} ({record.suite}), {record.num_classes} classes"),
            ("training images", f"{record.n_train}{f', {record.shots} per class' if record.shots else ''}"),
            ("draw", record.draw),
            ("data fingerprint", f"`{record.data_fingerprint}`"),
            ("protocol", f"`{record.protocol}`, recipe `{record.recipe}`"),
            ("images", f"{record.image_size} pixels, resized by `{card.resize}`, {record.normalisation}"),
            ("backbone", f"`{record.backbone}`, weights `{record.backbone_sha256}`"),
            ("backbone checkpoint", f"`{record.checkpoint}`" if record.checkpoint else ""),
            ("precision", f"`{record.precision}` on {record.device}"),
            ("switches", record.switches),
            ("software", _software(record)),
            ("settings", f"`{settings}`"),
        ]
    )


def _software(record: RunRecord) -> str:
    plug_in, _, plug_in_release = record.method_package.rpartition(" ")
    versions = {
        "shipbench": record.shipbench_version,
        "torch": record.torch_version,
        "timm": record.timm_version,
        "peft": record.peft_version,
        plug_in: plug_in_release,
    }
    return ", ".join(f"{name} {release}" for name, release in versions.items() if release)


def _table(rows: Sequence[tuple[str, str]]) -> str:
    """Return a table of facts; those without a value are left out."""
    cells = ((name, " ".join(value.replace("|", "\\|").split("\n"))) for name, value in rows if value)
    body = "".join(f"| {name} | {value} |\n" for name, value in cells)
    return f"| | |\n| --- | --- |\n{body}"


def _yaml(values: dict[str, object]) -> str:
    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
