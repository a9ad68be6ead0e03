"""The images that a finished run is scored on: its own test images, or other images of the same classes."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from shipbench.data.drawing import Drawing, draw, draw_test
from shipbench.data.listings import DrawnSource, ListedSource, Listing, numbered
from shipbench.data.loading import Copy, find, identified, require_room
from shipbench.data.sources import open_filled, source_kind
from shipbench.data.types import Entry, Source, Split, SplitRole
from shipbench.errors import InputError
from shipbench.record import RunRecord
from shipbench.tasks import TASKS, Task
from shipbench.tasks.catalogue import Resize
from shipbench.tasks.own import names_in_records, without_number

_MOST_NAMES = 5


@dataclass(frozen=True)
class EvaluationImages:
    """Identified images for a run, their labels numbered as its classes.

    ``same_data`` says whether they come from the data that the run was trained on; they are then its test images.
    """

    copy: Copy
    same_data: bool

    @property
    def task(self) -> Task:
        """The task of the images."""
        return self.copy.task

    def load(self, image_size: int) -> Split:
        """Return the decoded images; raise ``InputError`` if one cannot be decoded or the disk has no room."""
        require_room([(self.copy, image_size)])
        return self.copy.load(image_size)["test"]


@dataclass(frozen=True)
class OpenedImages:
    """Images of the classes of a run, listed but not read.

    ``content`` is their listing, or their source if that has no listing. ``own`` says whether they are to be the test
    images of the run, because no others were named.
    """

    record: RunRecord
    task: Task
    content: Listing | Source
    own: bool

    def identified(self) -> EvaluationImages:
        """Return the images to score after hashing them.

        A source without test images gives all its images, unless the run was trained on some of them: then it gives
        those that were held out. Raises ``InputError`` if the run may have been trained on some of the images, and if
        its own test images have changed.
        """
        record, task, content = self.record, self.task, self.content
        copy = _of_listing(record, task, content) if isinstance(content, Listing) else identified(task, content)
        same_data = copy.identity.fingerprint == record.data_fingerprint
        if self.own and not same_data:
            raise InputError(
                f"the images of {record.task} are not those of run {record.run_id}: their fingerprint is "
                f"{copy.identity.fingerprint[:12]}, not {record.data_fingerprint[:12]}; name other images with --on"
            )
        if same_data and copy.counts["test"] != record.n_test:
            raise InputError(
                f"{task.name} draws {copy.counts['test']} test images from the source of run {record.run_id}, which "
                f"was tested on {record.n_test}; name the task file or the source of the run with --on"
            )
        return EvaluationImages(copy, same_data)


def open_images(record: RunRecord, resize: Resize, on: Task | None, data: Path | None) -> OpenedImages:
    """Open the images of task ``on``, by default those of the run, to be framed as ``resize`` says; read none.

    ``data`` is the folder of catalogued data sets. Raises ``InputError`` if the images cannot be opened, and if their
    classes are not those of the run.
    """
    task = replace(_catalogued(record) if on is None else on, resize=resize, augment="none", allow_leaks=True, shots=0)
    kind = source_kind(task)
    content: Listing | Source
    if isinstance(kind, ListedSource):
        content = _with_classes_of(record, task, kind.listing(task, data))
    else:
        _require_number(record, task, task.num_classes)
        content = open_filled(task, data, ("test",))
    return OpenedImages(record, task, content, own=on is None)


def images_elsewhere(task: Task, data: Path | None) -> Copy:
    """Open the images on which ``task`` evaluates a run that was trained on none of them.

    Raises ``InputError`` if they cannot be opened.
    """
    # Nobody trains on them, so what they share with their own training images is no leak.
    task = replace(task, allow_leaks=True)
    kind = source_kind(task)
    if isinstance(kind, ListedSource):
        listing = numbered(task, kind.listing(task, data))
        drawing = _drawing(task, listing)
        return _all_images(task, listing) if drawing is None or drawing.held_out else _copy(task, listing, drawing)
    return find(replace(task, shots=0), data, ("test",))


def _catalogued(record: RunRecord) -> Task:
    task = TASKS.get(record.task)
    if task is None or record.source not in ("", task.source):
        raise InputError(
            f"run {record.run_id} was trained on {record.task}, which is not in the catalogue, and records hold no "
            "paths; name its source with --on, as in --on folder:PATH"
        )
    return task


def _with_classes_of(record: RunRecord, task: Task, listing: Listing) -> Listing:
    """Return the listing with the classes numbered as in the run; raise ``InputError`` if they are others."""
    listing = numbered(task, listing)
    names = tuple(json.loads(record.class_names or "[]"))
    if not names:
        _require_number(record, task, len(listing.classes))
        return listing
    missing, unknown = (_differing(names, listing.classes), _differing(listing.classes, names))
    if missing or unknown:
        clauses = (f"lacks {missing}" if missing else "", f"has {unknown} besides" if unknown else "")
        raise InputError(
            f"{task.name} does not have the classes of run {record.run_id}: it {' and '.join(filter(None, clauses))}; "
            "name images of the same classes"
        )
    return numbered(replace(task, class_names=names), listing)


def _differing(names: tuple[str, ...], others: tuple[str, ...]) -> str:
    differing = [repr(name) for name in names if name not in others]
    more = len(differing) - _MOST_NAMES
    return ", ".join([*differing[:_MOST_NAMES], *([f"{more} more"] if more > 0 else [])])


def _require_number(record: RunRecord, task: Task, number: int) -> None:
    if number != record.num_classes:
        raise InputError(
            f"{task.name} has {number} classes, but run {record.run_id} was trained on {record.num_classes} "
            f"({record.task}); name images of the same classes"
        )


def _of_listing(record: RunRecord, task: Task, listing: Listing) -> Copy:
    """Return the test images of a listing, or all of its images if the run was trained on none of them."""
    drawing = _drawing(task, listing)
    if drawing is not None:
        copy = _copy(task, listing, drawing)
        if not drawing.held_out or copy.identity.fingerprint == record.data_fingerprint:
            return copy
    if not (listing.splits.get("train") and listing.splits.get("test")):
        _refuse_changed_source(record, task)
    return _all_images(task, listing)


def _refuse_changed_source(record: RunRecord, task: Task) -> None:
    """Refuse a source without training or test images that has the name of the run's but other images.

    With an image more or fewer, the fifth of a class that is held out may contain images that were trained on, and a
    task file may have had the run trained on the only split that there is.
    """
    # Records hold no paths, so only the name can tell.
    if task.source == record.source and names_in_records(task) & {record.task, without_number(record.task)}:
        raise InputError(
            f"{task.name} has the name of the source of run {record.run_id} but other images, some of which the run "
            "may have been trained on; restore the images of the run, or give images that are new to it another name "
            "in a task file"
        )


def _all_images(task: Task, listing: Listing) -> Copy:
    """Return the test images of a listing that nothing is trained on, or all of its images if it has none."""
    test = listing.splits.get("test", ())
    pool = test or tuple(entry for part in listing.splits.values() for entry in part)
    pools: dict[SplitRole, tuple[Entry, ...]] = {"train": (), "val": (), "test": pool}
    drawn = draw_test(task, test) if test else pool
    return _copy(task, listing, Drawing({"train": (), "test": drawn}, pools, held_out=False))


def _drawing(task: Task, listing: Listing) -> Drawing | None:
    try:
        return draw(task, listing.splits, listing.classes)
    except InputError:
        # The images do not suffice to train on, so no run was trained on them.
        return None


def _copy(task: Task, listing: Listing, drawing: Drawing) -> Copy:
    source = DrawnSource(task, listing, drawing, ("test",))
    return Copy(task, source.identity(), source)
