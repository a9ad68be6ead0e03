"""Text helpers of the report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import wrap
from zlib import crc32


def slug(text: str) -> str:
    """Return ``text`` as part of a file name: lower-case letters, digits and hyphens; unlike texts stay unlike."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return plain if plain == text else f"{plain[:40]}-{crc32(text.encode()):08x}".lstrip("-")


def joined(names: Sequence[str]) -> str:
    """Join names with commas and a final "and"."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def printable(text: str) -> str:
    """Return ``text`` with a space for every control character: no format and no font can show one."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else " " for letter in text)


def shortened(text: str, most: int = 44) -> str:
    """Return ``text`` with its middle left out if it is too long for a figure."""
    tail = most // 3
    return text if len(text) <= most else f"{text[: most - tail - 1].rstrip()}…{text[-tail:].lstrip()}"


def wrapped(text: str, width: int) -> str:
    """Break ``text`` into lines of at most ``width`` letters, for places where room is short."""
    return "\n".join(wrap(text, width)) or text


def seed_list(seeds: Sequence[int]) -> str:
    """Write seeds shortly: runs of three or more as a range ("0-2"), others one by one."""
    parts: list[list[int]] = []
    for seed in sorted(set(seeds)):
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    texts = [[f"{run[0]}–{run[-1]}"] if len(run) > 2 else [str(seed) for seed in run] for run in parts]  # noqa: RUF001
    return ", ".join(text for group in texts for text in group)


def with_seeds(seeds: Sequence[int]) -> str:
    """Write seeds with their noun: "seed 0", "seeds 0-2"."""
    return f"{'seed' if len(set(seeds)) == 1 else 'seeds'} {seed_list(seeds)}"


def counted(count: int, noun: str) -> str:
    """Write a count with its noun: "1 run", "3 runs"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
