"""Where the weights of a backbone come from."""

from __future__ import annotations

from dataclasses import dataclass

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Origin:
    """The weights of a backbone and the file that they come from.

    ``sha256`` hashes the tensors that the file holds, under timm's names, before position embeddings are resampled.
    ``grid`` is the side of their grid of position embeddings. ``mean`` and ``std`` normalise images. They are those of
    ``backbone`` in timm, or of ``family`` if the layout of the file shows another family of models. ``file`` is empty
    for weights that belong to the name, and for random ones; ``part`` is the set of weights that was taken from it.
    ``notes`` are lines for the user about choices that loading made.

    What a method can use of the architecture: ``unpromptable`` says why its blocks take neither prompts nor adapters,
    and is empty if they do; ``mlp`` is then the class of their MLP in timm, plain (``Mlp``) or gated (``GluMlp``,
    ``SwiGLU`` and others); ``class_token`` and ``stochastic_depth`` tell whether it has them,
    ``position_embeddings`` whether positions are embeddings that it adds to its patches and nothing else, and
    ``blocks`` is the number of its blocks.
    ``grid`` is 0 for an architecture without a square grid of patches. ``image_size`` is the side of the square images
    that the backbone was loaded for, in pixels; 0 if it is unknown.
    """

    backbone: str
    sha256: str
    grid: int
    mean: Triple
    std: Triple
    file: str = ""
    part: str = ""
    family: str = ""
    notes: tuple[str, ...] = ()
    unpromptable: str = ""
    mlp: str = "Mlp"
    class_token: bool = True
    stochastic_depth: bool = True
    position_embeddings: bool = True
    blocks: int = 0
    image_size: int = 0

    def normalisation(self, mean: Triple | None, std: Triple | None) -> str:
        """Return the family whose mean and deviation replace those of the name, or an empty string.

        ``mean`` and ``std`` are those of the recipe, which take precedence over both.
        """
        return "" if mean and std else self.family

    def lines(self, mean: Triple | None, std: Triple | None) -> tuple[str, ...]:
        """Return the messages about a checkpoint file: first how images are normalised, then the notes.

        ``mean`` and ``std`` are those of the recipe, or None. Empty without a file.
        """
        if not self.file:
            return ()
        values = f"mean {_joined(mean or self.mean)} and deviation {_joined(std or self.std)}"
        return (f"{self.file}: images are normalised with {values}, {self.whose(mean, std)}", *self.notes)

    def whose(self, mean: Triple | None, std: Triple | None) -> str:
        """Return whose mean and deviation are used, in words; ``mean`` and ``std`` are those of the recipe, or None."""
        whose = f"those of {self.family or f'{self.backbone} in timm'}"
        changed = [name for name, value in (("mean", mean), ("std", std)) if value]
        if not changed:
            return whose
        return f"as set by {' and '.join(changed)}" + ("" if len(changed) == 2 else f", otherwise {whose}")


def _joined(values: Triple) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
