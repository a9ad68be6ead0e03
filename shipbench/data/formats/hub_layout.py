"""Which files of a local Hugging Face data set belong to which configuration and split."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from shipbench.data.formats.arrow_tables import ArrowTable, Features, ImageTable, ParquetTable, read_features
from shipbench.data.formats.files import is_hidden, visible_files
from shipbench.data.formats.roles import role_of, role_within
from shipbench.data.images import read_bytes
from shipbench.errors import InputError
from shipbench.runtime.json_text import parse_json

_SHARD = re.compile(r"(.+?)-(?P<number>\d{5})-of-(?P<count>\d{5})(?:-[0-9a-f]+)?")
_DEFAULT = "default"
_WILDCARD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class _SplitFiles:
    """The files of a split, and the patterns that ask for them: every file, unless a card says so."""

    paths: tuple[Path, ...]
    patterns: tuple[str, ...] = ("**",)


@dataclass(frozen=True)
class HubTables:
    """The tables of a data set by split, the declared types of their columns, and the folder that paths start from."""

    tables: Mapping[str, ImageTable]
    features: Features
    folder: Path


def saved_tables(folder: Path) -> HubTables | None:
    """Open a data set that ``save_to_disk`` wrote; ``None`` if ``folder`` holds none."""
    if (folder / "dataset_dict.json").is_file():
        splits = _json(folder / "dataset_dict.json").get("splits")
        names = [str(name) for name in splits] if isinstance(splits, list) else []
    elif (folder / "state.json").is_file():
        names = [""]
    else:
        return None
    tables: dict[str, ImageTable] = {}
    features = Features()
    for name in names:
        state = _json(folder / name / "state.json")
        files = [folder / name / str(item.get("filename")) for item in _objects(state.get("_data_files"))]
        if not files:
            raise InputError(f"{folder / name / 'state.json'} names no file of images; save the data set again")
        tables[name or "train"] = ArrowTable(files)
        features = read_features(_json(folder / name / "dataset_info.json").get("features"))
    return HubTables(tables, features, folder)


def parquet_tables(path: Path, config: str | None) -> HubTables | None:
    """Open the Parquet files of a data set; ``None`` if ``path`` holds none.

    Raises ``InputError`` if there are several configurations and ``config`` names none of them.
    """
    if path.is_file():
        return _opened({"train": [path]}, Features(), path.parent) if path.suffix == ".parquet" else None
    files = sorted(path / name for name in visible_files(path) if name.endswith(".parquet"))
    if not files:
        return None
    card = _card(path / "README.md")
    configs = _declared(path, card) or _inferred(path, files)
    name = choose_config(list(configs), config, path)
    for split, part in configs[name].items():
        _require_all_shards(split, part, path)
    paths = {split: part.paths for split, part in configs[name].items()}
    return _opened(paths, _card_features(card, name) or _recorded_features(path / "dataset_infos.json", name), path)


def choose_config(configs: Sequence[str], config: str | None, where: object) -> str:
    """Return the configuration to read; raise ``InputError`` if it is missing or has to be chosen."""
    listed = ", ".join(configs[:20])
    if config is not None and config not in configs:
        raise InputError(f"{where} has no configuration {config!r}; it has {listed}")
    if config is None and len(configs) > 1:
        raise InputError(f"{where} has several configurations ({listed}); name one, as in hf:{where}:{configs[0]}")
    return configs[0] if config is None else config


def _opened(files: Mapping[str, Sequence[Path]], declared: Features, folder: Path) -> HubTables:
    tables = {split: ParquetTable(paths) for split, paths in files.items()}
    # A split without labels may say less of its columns than the others.
    described = max(
        (table.features() for table in tables.values()), key=lambda item: len(item.images) + len(item.classes)
    )
    features = described if described.images or described.classes else declared
    return HubTables(tables, features, folder)


def _require_all_shards(split: str, files: _SplitFiles, root: Path) -> None:
    """Raise ``InputError`` if pieces that the patterns ask for are missing, as after a broken download.

    The pieces of one name in one folder make up a whole. Pieces of two versions are refused unless the patterns name
    them one by one.
    """
    wild = [pattern for pattern in files.patterns if _WILDCARD.search(pattern)]
    numbers: dict[tuple[Path, str, int], set[int]] = {}
    totals: dict[tuple[Path, str], set[int]] = {}
    for file in (path.relative_to(root) for path in files.paths):
        if shard := _SHARD.fullmatch(file.stem):
            numbers.setdefault((file.parent, shard[1], int(shard["count"])), set()).add(int(shard["number"]))
            if _is_asked_for(file, wild):
                totals.setdefault((file.parent, shard[1]), set()).add(int(shard["count"]))
    if mixed := next((counts for counts in totals.values() if len(counts) > 1), None):
        raise InputError(
            f"{root} holds {split} in {' and in '.join(map(str, sorted(mixed)))} pieces; keep the files of one "
            "version of the data set"
        )
    for (folder, name, count), present in numbers.items():
        others = (number for number in range(count) if number not in present)
        pieces = {number: folder / f"{name}-{number:05d}-of-{count:05d}.parquet" for number in others}
        if absent := [number for number, piece in pieces.items() if _is_asked_for(piece, files.patterns)]:
            raise InputError(
                f"{root} lacks {len(absent)} of the {count} pieces of {split}, the first with the number "
                f"{absent[0]:05d}; download the data set again"
            )


def _is_asked_for(file: Path, patterns: Sequence[str]) -> bool:
    """Return whether one of a card's patterns fits a path relative to the data set."""
    # Path.match compares from the right, so a pattern without ** has to have as many parts.
    return any(
        ("**" in pattern or len(file.parts) == len(PurePosixPath(pattern).parts)) and file.match(pattern)
        for pattern in patterns
    )


def _is_visible(file: Path, root: Path) -> bool:
    return not any(is_hidden(part) for part in file.relative_to(root).parts)


def _inferred(root: Path, files: Sequence[Path]) -> dict[str, dict[str, _SplitFiles]]:
    configs: dict[str, dict[str, list[Path]]] = {}
    for file in files:
        config, split = _config_and_split(PurePosixPath(file.relative_to(root).as_posix()))
        configs.setdefault(config, {}).setdefault(split, []).append(file)
    return {
        config: {split: _SplitFiles(tuple(paths)) for split, paths in _with_unnamed(splits).items()}
        for config, splits in configs.items()
    }


def _with_unnamed(splits: Mapping[str, list[Path]]) -> dict[str, list[Path]]:
    """Return the files by split; those that name none are train, or apart from it if others are called so."""
    named = {split: files for split, files in splits.items() if split}
    has_train = any(role_of(split) == "train" for split in named)
    for file in splits.get("", ()):
        named.setdefault(file.stem if has_train else "train", []).append(file)
    return named


def _config_and_split(path: PurePosixPath) -> tuple[str, str]:
    """Return the configuration and split of a file by its path, as ``data/train-00000-of-00001.parquet``.

    The split is empty if the path names none.
    """
    folders = list(path.parent.parts)
    if shard := _SHARD.fullmatch(path.stem):
        split = shard[1]
    elif folders and (path.stem.isdecimal() or role_of(folders[-1])):
        split = folders.pop()
    else:
        split = role_within(path.stem) or ""
    config = "/".join(folders)
    return (_DEFAULT if config in ("", "data") else config), split.removeprefix("partial-")


def _declared(root: Path, card: Mapping[str, Any]) -> dict[str, dict[str, _SplitFiles]]:
    """Return the files of each configuration that the card's ``configs`` lists."""
    configs: dict[str, dict[str, _SplitFiles]] = {}
    for item in _objects(card.get("configs")):
        splits: dict[str, _SplitFiles] = {}
        for split, pattern in _patterns(item.get("data_files")):
            matches = sorted(f for f in _matching(root, pattern) if f.suffix == ".parquet" and _is_visible(f, root))
            known = splits.get(split, _SplitFiles((), ()))
            splits[split] = _SplitFiles((*known.paths, *matches), (*known.patterns, pattern))
        if splits := {split: files for split, files in splits.items() if files.paths}:
            configs[str(item.get("config_name", _DEFAULT))] = splits
    return configs


def _matching(root: Path, pattern: str) -> list[Path]:
    """Return the files below ``root`` that match a card's pattern; none for one that pathlib has no meaning for."""
    try:
        files = list(root.glob(pattern))
    except (ValueError, NotImplementedError):
        return []
    return [file for file in files if ".." not in file.relative_to(root).parts]


def _patterns(data_files: Any) -> Iterator[tuple[str, str]]:
    """Yield split and pattern of a card's ``data_files``: a pattern, a list of patterns, or one item per split."""
    for item in data_files if isinstance(data_files, list) else [data_files]:
        if isinstance(item, str):
            yield "train", item
        elif isinstance(item, dict):
            paths = item.get("path") or ()
            for pattern in paths if isinstance(paths, list) else [paths]:
                yield str(item.get("split", "train")), str(pattern)


def _card(file: Path) -> Mapping[str, Any]:
    """Return the YAML header of a data set's README; empty if there is none."""
    from shipbench.runtime.yaml_text import parse_yaml

    if not file.is_file():
        return {}
    text = read_bytes(file).decode("utf-8", "replace")
    if not text.startswith("---"):
        return {}
    try:
        content = parse_yaml(text.split("---", 2)[1])
    except ValueError as error:
        raise InputError(f"{file} begins with a header that is not YAML: {error}; correct it or remove it") from error
    return content if isinstance(content, dict) else {}


def _recorded_features(file: Path, config: str) -> Features:
    """Return the features in the file that older data sets have in place of the card's header."""
    infos = _json(file) if file.is_file() else {}
    info = infos.get(config, next(iter(infos.values())) if len(infos) == 1 else None)
    return read_features(info.get("features") if isinstance(info, dict) else None)


def _card_features(card: Mapping[str, Any], config: str) -> Features | None:
    """Return the features that a card lists under ``dataset_info``; ``None`` if it lists none."""
    infos = _objects(card.get("dataset_info"))
    info: Mapping[str, Any] = next(
        (item for item in infos if item.get("config_name", _DEFAULT) == config or len(infos) == 1), {}
    )
    images, classes = [], {}
    for feature in _objects(info.get("features")):
        kind = feature.get("dtype")
        if kind == "image":
            images.append(feature["name"])
        elif isinstance(kind, dict) and "class_label" in kind:
            names = kind["class_label"].get("names") or {}
            ordered = [names[key] for key in sorted(names, key=int)] if isinstance(names, dict) else names
            classes[feature["name"]] = tuple(map(str, ordered))
    return Features(tuple(images), classes) if images or classes else None


def _objects(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects in a value of a card, which may be one itself; other values mean nothing."""
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)]


def _json(file: Path) -> dict[str, Any]:
    try:
        content = parse_json(read_bytes(file))
    except ValueError as error:
        raise InputError(f"{file} is not JSON ({error}); save the data set again") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} does not describe a data set; save it again")
    return content
