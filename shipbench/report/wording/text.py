"""Texts: file names, lists, counts and line breaks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from textwrap import wrap
from zlib import crc32


def slug(text: str) -> str:
    """Return ``text`` as lower-case letters, digits and hyphens for a file name; distinct texts stay distinct."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return plain if plain == text else f"{plain[:40].rstrip('-')}-{crc32(text.encode()):08x}".lstrip("-")


def numbered(name: str, number: int) -> str:
    """Return ``name`` for the first of several files, then ``name--2``, ``name--3``; no ``slug`` has two hyphens."""
    return f"{name}--{number}" if number > 1 else name


def joined(names: Sequence[str]) -> str:
    """Return ``names`` joined with commas and a final "and"."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def listed(names: Sequence[str], most: int = 4) -> str:
    """Return ``names`` joined as in a sentence; beyond ``most`` of them, the rest is only counted."""
    if len(names) <= most:
        return joined(names)
    return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"


def sentence_case(text: str) -> str:
    """Return ``text`` with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def printable(text: str) -> str:
    """Return ``text`` with control characters replaced by spaces, because no format and no font can show them."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in "\n\t" else " " for letter in text)


def shortened(text: str, most: int = 44) -> str:
    """Return ``text``, with its middle replaced by an ellipsis if it has more than ``most`` letters."""
    tail = most // 3
    return text if len(text) <= most else f"{text[: most - tail - 1].rstrip()}…{text[-tail:].lstrip()}"


def shortened_apart(texts: Sequence[str], most: int = 44) -> list[str]:
    """Return ``texts`` as ``shortened`` does, numbered where different ones would be the same."""
    short = [shortened(text, most) for text in texts]
    alike = Counter(short)
    seen = Counter[str]()
    for i, text in enumerate(texts):
        if alike[short[i]] > 1:
            seen[short[i]] += 1
            number = f" [{seen[short[i]]}]"
            short[i] = shortened(text, most - len(number)) + number
    return short


def wrapped(text: str, width: int) -> str:
    """Return ``text`` broken into lines of at most ``width`` letters."""
    return "\n".join(wrap(text, width)) or text


def seed_list(seeds: Sequence[int]) -> str:
    """Format seeds, with three or more consecutive ones as a range: "0-2, 5"; one below 0 is not stated."""
    parts: list[list[int]] = []
    for seed in sorted({seed for seed in seeds if seed >= 0}):
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    texts = [[f"{run[0]}–{run[-1]}"] if len(run) > 2 else [str(seed) for seed in run] for run in parts]  # noqa: RUF001
    unknown = ["not stated"] if any(seed < 0 for seed in seeds) else []
    return ", ".join([*(text for group in texts for text in group), *unknown])


def with_seeds(seeds: Sequence[int]) -> str:
    """Format seeds with their noun: "seed 0", "seeds 0-2"."""
    return f"{'seed' if len(set(seeds)) == 1 else 'seeds'} {seed_list(seeds)}"
