"""``torchvision:CLASS``: the classification data sets of ``torchvision.datasets``.

Nothing is downloaded unless the task file says ``download = true``.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from shipbench.counts import counted
from shipbench.data.formats.labels import Label, Rows, make_listing
from shipbench.data.formats.options import place, require_known, switch_option, table_option, text_option
from shipbench.data.formats.roles import assign_roles, role_of
from shipbench.data.formats.torchvision_files import containers_of, together
from shipbench.data.identities import remembered
from shipbench.data.listings import Containers, ListedSource, Listing, SplitRole
from shipbench.errors import InputError, did_you_mean, one_line
from shipbench.tasks import Task

KEYS = ("root", "download", "splits", "arguments")

# The values of the argument ``split`` that divide a data set into train, val and test.
_SPLITS: dict[str, tuple[str, ...]] = {
    "Country211": ("train", "valid", "test"),
    "FGVCAircraft": ("train", "val", "test"),
    "ImageNet": ("train", "val"),
    "Imagenette": ("train", "val"),
    "OxfordIIITPet": ("trainval", "test"),
    "Places365": ("train-standard", "val"),
}
_USUAL = ("train", "val", "test")
_TRAIN = ("trainval", "train-standard")

# Classes whose targets are no single class label, and what they are.
_REFUSED: dict[str, str] = {
    **dict.fromkeys(("CocoDetection", "Kitti", "VOCDetection", "WIDERFace"), "boxes"),
    **dict.fromkeys(("Cityscapes", "SBDataset", "VOCSegmentation"), "segmentation masks"),
    **dict.fromkeys(("CocoCaptions", "Flickr30k", "Flickr8k", "SBU"), "captions"),
    **dict.fromkeys(("HMDB51", "Kinetics", "MovingMNIST", "UCF101"), "videos"),
    **dict.fromkeys(("LFWPairs", "PhotoTour"), "pairs of images"),
    "CelebA": "several attributes per image",
    "DatasetFolder": "your own folders, which the source folder: reads",
    "ImageFolder": "your own folders, which the source folder: reads",
}
_LABEL_ATTRIBUTES = ("targets", "labels", "_labels", "y")


class TorchvisionDataset(ListedSource):
    """The source ``torchvision``.

    Keys of the task file: ``root`` (the folder that the class reads), ``download``, ``splits`` (role to value of the
    argument ``split``) and ``arguments`` (other arguments of the class). Without ``root``, the class reads the folder
    of ``--data``, else the working directory or that of the task file.
    """

    option_names = KEYS

    def listing(self, task: Task, root: Path | None) -> Listing:
        """List the images of a task, whose files lie in ``root`` unless the task file says otherwise."""
        options = json.loads(task.options)
        base = root if root is not None and "root" not in options else Path(task.base)
        return self.list(task.location, base, options)

    def list(self, location: str, base: Path, options: Mapping[str, Any]) -> Listing:
        """List the images of a class of ``torchvision.datasets``.

        Raises ``InputError`` if there is no such class, if its targets are no class labels, if its files are missing,
        and if the task file must choose a split or an argument.
        """
        require_known(options, KEYS, "torchvision")
        kind = _class(location)
        opener = _Opener(location, kind, place(text_option(options, "root") or ".", base), options)
        roles, untrainable = opener.roles()
        datasets = {split: opener.open(split) for split in roles}
        containers = {split: opener.containers(split, dataset) for split, dataset in datasets.items()}
        labels = {split: _labels(dataset, location, containers[split]) for split, dataset in datasets.items()}
        rows, notes = _rows(location, labels, roles)
        names = _class_names(next(iter(datasets.values())), rows)
        images, where = TorchvisionImages(datasets), f"torchvision:{location}"
        listing = make_listing(rows, images, where, names=names, notes=notes, untrainable=untrainable)
        return replace(listing, containers=together(containers.values()))


@dataclass(frozen=True)
class TorchvisionImages:
    """Images of opened data sets, called ``train/00000012`` after split and index."""

    datasets: Mapping[str, Any]

    def read(self, path: str) -> Image.Image:
        """Return a decoded image; raise ``InputError`` if the data set cannot give it."""
        split, _, index = path.rpartition("/")
        try:
            image = self.datasets[split][int(index)][0]
        except Exception as error:
            raise InputError(f"image {int(index)} of the {split} split cannot be read: {one_line(error)}") from error
        if not isinstance(image, Image.Image):
            raise InputError(
                f"image {int(index)} of the {split} split is not a Pillow image but a {type(image).__name__}"
            )
        return image


@dataclass(frozen=True)
class _Opener:
    """Constructs a class of torchvision for one of its splits."""

    name: str
    kind: type[Any]
    root: Path
    options: Mapping[str, Any]

    def roles(self) -> tuple[dict[str, SplitRole], str]:
        """Return the splits to open and their roles, and why there is nothing to train on."""
        if "train" in self._parameters():
            return assign_roles(("train", "test"), self.options, f"torchvision:{self.name}")
        if not self._has_split():
            return {"all": "train"}, ""
        values = table_option(self.options, "splits").values()
        chosen = [str(name) for value in values for name in (value if isinstance(value, list) else [value])]
        names = [*chosen, *(name for name in self._split_names() if name not in chosen)]
        return assign_roles(names, self.options, f"torchvision:{self.name}", _role)

    def open(self, split: str) -> Any:
        """Construct the data set of one split; raise ``InputError`` if its files or a package are missing."""
        with self._explained():
            return self.kind(**self._arguments(split))

    def containers(self, split: str, dataset: Any) -> Containers | None:
        """Return the files of an opened split; None if they are not known."""
        return containers_of(dataset, self.root, self._arguments(split))

    def _split_names(self) -> Sequence[str]:
        """Return the values of ``split``: the known ones, else the usual ones that the class accepts."""
        if self.name in _SPLITS:
            return _SPLITS[self.name]
        return [split for split in _USUAL if self._accepts(split)]

    def _accepts(self, split: str) -> bool:
        try:
            self.kind(**{**self._arguments(split), "download": False})
        except ValueError:
            return False
        except Exception:
            # The value is accepted; the files are missing, which opening the split reports.
            return True
        return True

    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        """Return the constructor's parameters, those that it passes on to its base classes included."""
        parameters: dict[str, inspect.Parameter] = {}
        for base in self.kind.__mro__:
            if "__init__" in vars(base):
                signature = inspect.signature(vars(base)["__init__"]).parameters
                parameters = {**signature, **parameters}
                if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.values()):
                    break
        return {name: parameter for name, parameter in parameters.items() if name != "self"}

    def _has_split(self) -> bool:
        return "split" in self._parameters() and "split" not in table_option(self.options, "arguments")

    def _arguments(self, split: str) -> dict[str, Any]:
        parameters = self._parameters()
        arguments = dict(table_option(self.options, "arguments"))
        if unknown := [key for key in arguments if key not in parameters or key in ("root", "download", "train")]:
            raise InputError(f"arguments.{unknown[0]} in the task file is not an argument of torchvision:{self.name}")
        self._require_arguments(arguments)
        if "root" in parameters:
            arguments["root"] = str(self.root)
        if "train" in parameters:
            arguments["train"] = split == "train"
        elif self._has_split():
            arguments["split"] = split
        if "download" in parameters:
            arguments["download"] = switch_option(self.options, "download")
        return arguments

    def _require_arguments(self, arguments: Mapping[str, Any]) -> None:
        """Raise ``InputError`` for an argument without a default, as EMNIST's ``split``, which names a variant."""
        for name, parameter in self._parameters().items():
            required = (
                parameter.default is inspect.Parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            )
            if required and name not in ("root", *arguments) and (name != "split" or "train" in self._parameters()):
                values = vars(self.kind).get(f"{name}s", ())
                choices = f" ({', '.join(values)})" if values else ""
                raise InputError(
                    f"torchvision:{self.name} needs the argument {name!r}{choices}; "
                    f'choose it in the task file: arguments = {{ {name} = "..." }}'
                )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except ModuleNotFoundError as error:
            raise InputError(f"torchvision:{self.name} needs the package {error.name}; install it") from error
        except (RuntimeError, FileNotFoundError, NotADirectoryError) as error:
            raise InputError(
                f"torchvision:{self.name} cannot be read from {self.root} ({one_line(error, 200).rstrip('.')}); name "
                "its folder in the task file with root = ..., or allow the download with download = true"
            ) from error
        except Exception as error:
            raise InputError(f"torchvision:{self.name} cannot be opened: {one_line(error, 300)}") from error


def _class(name: str) -> type[Any]:
    from torchvision import datasets

    names = [kind for kind in datasets.__all__ if kind != "VisionDataset"]
    if name not in names:
        exact = next((kind for kind in names if kind.lower() == name.lower()), None)
        hint = f" (did you mean {exact!r}?)" if exact else did_you_mean(name, names)
        raise InputError(f"torchvision has no data set called {name!r}{hint}")
    if name in _REFUSED:
        raise InputError(f"torchvision:{name} holds {_REFUSED[name]}; shipbench trains with one label per image")
    kind: type[Any] = vars(datasets)[name]
    return kind


def _role(split: str) -> SplitRole | None:
    return "train" if split in _TRAIN else role_of(split)


def _rows(
    name: str, labels_of: Mapping[str, Sequence[int | None]], roles: Mapping[str, SplitRole]
) -> tuple[dict[SplitRole, Rows], list[str]]:
    rows: dict[SplitRole, Rows] = {}
    notes = []
    for split, labels in labels_of.items():
        kept = [(f"{split}/{index:08d}", label) for index, label in enumerate(labels) if label is not None]
        if not kept:
            notes.append(f"the {split} split of torchvision:{name} has no labels and is left out")
            continue
        if unlabelled := len(labels) - len(kept):
            notes.append(f"left out {counted(unlabelled, 'image')} of {split} in torchvision:{name} without a label")
        rows[roles[split]] = [*rows.get(roles[split], ()), *kept]
    return rows, notes


def _labels(dataset: Any, name: str, containers: Containers | None) -> Sequence[int | None]:
    """Return the label of every image, ``None`` for -1 and for images without one."""
    values = _listed_labels(dataset)
    if values is not None:
        return [_label(value, name) for value in values]

    def read() -> list[int | None]:
        return [_label(dataset[index][1], name) for index in range(len(dataset))]

    # The class decodes an image to give its label.
    return read() if containers is None else remembered(containers.files, ["labels", containers.reader], read)


def _listed_labels(dataset: Any) -> Sequence[Any] | None:
    """Return the labels of all images if an attribute has them, alone or in pairs."""
    for name in _LABEL_ATTRIBUTES:
        values = _attribute(dataset, name)
        if values is not None and len(values) == len(dataset):
            return values.tolist() if hasattr(values, "tolist") else values
    pairs = _attribute(dataset, "_samples")
    return None if pairs is None else [label for _, label in pairs]


def _label(value: Any, name: str) -> int | None:
    if value is None:
        return None
    try:
        label = int(value)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the targets of torchvision:{name} are no class labels, such as {str(value)[:60]}; shipbench trains with "
            "one label per image"
        ) from error
    return None if label == -1 else label


def _attribute(dataset: Any, name: str) -> Any:
    """Return an attribute that only some classes of torchvision have."""
    return vars(dataset).get(name)


def _class_names(dataset: Any, rows: Mapping[SplitRole, Rows]) -> dict[Label, str] | None:
    """Return the class names if the class has one for every label."""
    names = _attribute(dataset, "classes") or vars(type(dataset)).get("classes")
    if not isinstance(names, Sequence) or isinstance(names, str):
        return None
    titles = [", ".join(name) if isinstance(name, tuple) else str(name) for name in names]
    labels = {int(label) for split in rows.values() for _, label in split}
    fits = bool(labels) and min(labels) >= 0 and max(labels) < len(titles) == len(set(titles))
    return dict(enumerate(titles)) if fits else None
