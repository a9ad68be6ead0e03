"""Every image that a check names or counts, however many there are."""

from __future__ import annotations

from collections.abc import Iterator

from shipbench.data.inspection.evidence import Evidence
from shipbench.data.types import Entry, Finding


def findings(evidence: Evidence) -> Iterator[Finding]:
    """Yield the images that cannot be decoded, then those that have the bytes of one before them.

    Test images come after all others, so of an image that train and test share, the one in test is found.
    """
    broken = {path for path, facts in evidence.images.items() if facts.fault}
    yield from (Finding("broken", evidence.where(path)) for path in sorted(broken))
    first: dict[str, tuple[str, Entry]] = {}
    for split in (*evidence.training, "test"):
        for entry in {entry.path: entry for entry in evidence.entries(split)}.values():
            if entry.path in evidence.images and entry.path not in broken:
                here = (split, entry)
                before = first.setdefault(evidence.images[entry.path].identity.sha256, here)
                if before is not here:
                    yield Finding(_kind(here, before), *(evidence.where(each.path) for _, each in (here, before)))


def _kind(here: tuple[str, Entry], before: tuple[str, Entry]) -> str:
    if here[1].label != before[1].label:
        return "two classes"
    return "repeated" if here[0] == before[0] else f"{here[0]} and {before[0]}"
