"""The picture sets of the demo suite: which tasks they label, and the generator that draws them.

A generator's module is imported only when it draws. Raise a set's version whenever its generator changes a pixel or a
label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shipbench.data.demo.types import Pictures
from shipbench.errors import InputError
from shipbench.tasks import Task

_SEED = 0


@dataclass(frozen=True)
class PictureSet:
    """One set of pictures with a label column for each of ``tasks``; ``draw`` takes (n_train, n_test)."""

    name: str
    version: int
    tasks: tuple[str, ...]
    draw: Callable[[int, int], Pictures]

    def key(self, task: Task) -> str:
        """Return the cache key of the pictures."""
        return f"{self.name}-v{self.version}-{task.n_train}-{task.n_test}"


def picture_set_of(task: Task) -> PictureSet:
    """Return the picture set of a demo task; raise ``InputError`` for any other task."""
    for picture_set in PICTURE_SETS:
        if task.name in picture_set.tasks:
            return picture_set
    raise InputError(f"task {task.name!r} is not part of the demo suite; see 'shipbench list tasks'")


def _digits(n_train: int, n_test: int) -> Pictures:
    from shipbench.data.demo import photographs

    return photographs.digits(n_train, n_test)


def _textures(n_train: int, n_test: int) -> Pictures:
    from shipbench.data.demo import photographs

    return photographs.textures(n_train, n_test)


def _earth(n_train: int, n_test: int) -> Pictures:
    from shipbench.data.demo import earth

    return earth.earth_climate(n_train, n_test)


def _sprites(bins: int) -> Callable[[int, int], Pictures]:
    def draw(n_train: int, n_test: int) -> Pictures:
        from shipbench.data.demo.rendering import dsprites

        images, labels = dsprites.sample(_SEED, n_train + n_test, bins)
        return Pictures(images, labels[:, None])

    return draw


def _scenes(n_train: int, n_test: int) -> Pictures:
    from shipbench.data.demo.rendering import clevr

    return Pictures(*clevr.draw_set(_SEED, n_train + n_test))


PICTURE_SETS: tuple[PictureSet, ...] = (
    PictureSet("digits", 1, ("digits",), _digits),
    PictureSet("textures", 1, ("textures",), _textures),
    PictureSet("earth", 1, ("earth-climate",), _earth),
    PictureSet("dsprites", 1, ("dsprites-loc",), _sprites(bins=16)),
    PictureSet("clevr", 1, ("clevr-count", "clevr-dist"), _scenes),
    PictureSet("dsprites-tiny", 1, ("demo-tiny",), _sprites(bins=4)),
)
