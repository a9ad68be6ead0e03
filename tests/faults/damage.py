"""Flip single bits of files: each file must be refused with a sentence, or read as before."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from shipbench.errors import ShipbenchError
from shipbench.results.loading import load_history, load_predictions, load_results
from tests.faults.kills import Tally


def damage_bytes(results: Path, kind: str, count: int, seed: int) -> Tally:
    """Flip one bit at a time in a parquet file and read it; count files that are neither refused nor unchanged."""
    chance, tally = random.Random(seed), Tally()
    path = sorted((results / kind).glob("*.parquet"))[0]
    load: dict[str, Callable[[], pd.DataFrame]] = {
        "runs": lambda: load_results(results),
        "history": lambda: load_history(results, [path.stem]),
        "predictions": lambda: load_predictions(results, [path.stem]),
    }
    whole, content = load[kind](), path.read_bytes()
    try:
        for place in chance.sample(range(len(content)), min(count, len(content))):
            damaged = bytearray(content)
            damaged[place] ^= 1 << chance.randrange(8)
            path.write_bytes(bytes(damaged))
            _read_damaged(load[kind], whole, f"byte {place} of {kind}", tally)
    finally:
        path.write_bytes(content)
    return tally


def _read_damaged(load: Callable[[], pd.DataFrame], whole: pd.DataFrame, what: str, tally: Tally) -> None:
    tally.faults += 1
    try:
        if not load().equals(whole):
            tally.lost.append(f"{what} was changed unnoticed")
    except ShipbenchError:
        tally.refused += 1
    except Exception as error:
        tally.lost.append(f"{what} was changed, and reading ended with {type(error).__name__}: {error}")
