"""Where each demo task's pictures come from. Raise a version whenever its generator draws other pixels or labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shipbench.data.demo.earth import earth_climate
from shipbench.data.demo.photographs import digits, textures
from shipbench.data.demo.rendering import clevr, dsprites
from shipbench.data.demo.types import Pictures
from shipbench.errors import InputError
from shipbench.tasks import Task

_SEED = 0


@dataclass(frozen=True)
class Source:
    """One set of pictures, and the tasks that its label columns are for; ``draw`` takes (n_train, n_test)."""

    name: str
    version: int
    tasks: tuple[str, ...]
    draw: Callable[[int, int], Pictures]

    def key(self, task: Task) -> str:
        """Return what the pictures are cached under."""
        return f"{self.name}-v{self.version}-{task.n_train}-{task.n_test}"


def source_of(task: Task) -> Source:
    """Return the source of a demo task; raises ``InputError`` for any other task."""
    for source in SOURCES:
        if task.name in source.tasks:
            return source
    raise InputError(f"task {task.name!r} is not part of the demo suite; its images are read from --data")


def _sprites(bins: int) -> Callable[[int, int], Pictures]:
    def draw(n_train: int, n_test: int) -> Pictures:
        images, labels = dsprites.sample(_SEED, n_train + n_test, bins)
        return Pictures(images, labels[:, None])

    return draw


def _scenes(n_train: int, n_test: int) -> Pictures:
    return Pictures(*clevr.draw_set(_SEED, n_train + n_test))


SOURCES: tuple[Source, ...] = (
    Source("digits", 1, ("digits",), digits),
    Source("textures", 1, ("textures",), textures),
    Source("earth", 1, ("earth-climate",), earth_climate),
    Source("dsprites", 1, ("dsprites-loc",), _sprites(bins=16)),
    Source("clevr", 1, ("clevr-count", "clevr-dist"), _scenes),
    Source("dsprites-tiny", 1, ("demo-tiny",), _sprites(bins=4)),
)
