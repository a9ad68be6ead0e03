"""One evaluation: batches without gradients, between which no parameter changes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class SharesPrompts(Protocol):
    """A model that computes prompts which all images share once per evaluation instead of once per batch."""

    def evaluating(self) -> AbstractContextManager[None]:
        """Return a context in which batches share prompts; parameters and precision must not change in it."""
        ...


def evaluating(model: nn.Module) -> AbstractContextManager[None]:
    """Return the context of one evaluation of ``model``, which is in evaluation mode.

    Between its batches, neither parameters nor the precision may change. Outside of it, every batch is computed from
    the parameters as they are.
    """
    return model.evaluating() if isinstance(model, SharesPrompts) else nullcontext()
