"""An adapter without modules: some of the backbone's own tensors are trained."""

from __future__ import annotations

from torch import Tensor

from shipbench.adapting import Adapter

FINAL_NORM = ("norm.", "fc_norm.")


class Subset(Adapter):
    """The backbone as it is, some of whose tensors are trained: a merged model has their trained values."""

    def merge(self, weights: dict[str, Tensor]) -> None:
        """Change nothing."""


def belongs_to_norm(name: str) -> bool:
    """Return whether a backbone's tensor, by timm's name, belongs to a norm."""
    return "norm" in name.rpartition(".")[0].rpartition(".")[2]
