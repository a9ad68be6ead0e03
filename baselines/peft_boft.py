"""BOFT's rotation of a linear layer's inputs, block by block.

With one butterfly factor the rotation is block-diagonal. The library builds a dense matrix of the blocks and multiplies
it with three identity matrices before it multiplies the inputs, which takes most of a training step on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.boft import layer as boft
from torch import Tensor


class BlockRotated(boft.Linear):
    """A linear layer of BOFT with one factor and one adapter; it computes what the library's layer does.

    Its parameters are the library's: D rotations of H features, as (1, D, H, H), and a scale per output, (outputs, 1).
    """

    @staticmethod
    def replace(layer: Any) -> None:
        """Let ``layer``, one of the library's, compute as this class does if it is linear and has one factor."""
        if type(layer) is boft.Linear and all(len(factors) == 1 for factors in layer.boft_R.values()):
            layer.__class__ = BlockRotated

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs (..., outputs) for ``inputs`` (..., D * H)."""
        if self.disable_adapters or self.merged:
            return super().forward(inputs)
        (adapter,) = self.active_adapters
        rotations = self.cayley_batch(self.boft_R[adapter].squeeze(0))  # type: ignore[no-untyped-call]
        rotations = self.boft_dropout[adapter](rotations.unsqueeze(0)).squeeze(0)
        outputs = self.base_layer(_rotated(inputs, rotations.to(inputs.dtype)))
        bias = self.base_layer.bias
        scaled = (outputs if bias is None else outputs - bias) * self.boft_s[adapter].squeeze(-1)
        return (scaled if bias is None else scaled + bias).to(inputs.dtype)


def _rotated(inputs: Tensor, rotations: Tensor) -> Tensor:
    """Return ``inputs`` (..., D * H) with each D-th part of their features multiplied by its matrix of (D, H, H)."""
    parts = inputs.reshape(-1, *rotations.shape[:2]).transpose(0, 1)
    return torch.bmm(parts, rotations).transpose(0, 1).reshape(inputs.shape)
