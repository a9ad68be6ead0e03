"""FacT (Jie and Deng, AAAI 2023, arXiv 2212.03145): one factorised change of all weights of all blocks.

The weights of a block are pieces of D x D: q, k, v, proj, the slices of fc1's outputs and those of fc2's inputs (four
each in a usual ViT). Piece m changes by s v M_m u, where all pieces of all blocks share u (r, D) and v (D, r).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import NamedTuple

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench.adapting import Adapter, FrozenBlock
from shipbench.errors import InputError

from .settings import FactTtConfig


class Cores(NamedTuple):
    """The cores M of one block, (out, in): r x r each; those of fc1 stacked to (m r, r), those of fc2 to (r, m r)."""

    q: Tensor
    k: Tensor
    v: Tensor
    proj: Tensor
    fc1: Tensor
    fc2: Tensor


class Fact(Adapter):
    """W + s v M_m u for every piece m of the weights; a subclass provides the cores."""

    def __init__(self, backbone: VisionTransformer, config: FactTtConfig) -> None:
        super().__init__()
        self.config = config
        width, rank = backbone.embed_dim, config.rank
        self.slices = _slices(backbone)
        self.u = nn.Parameter(torch.empty(rank, width))
        self.v = nn.Parameter(torch.zeros(width, rank))
        nn.init.kaiming_uniform_(self.u, a=math.sqrt(5))

    @abstractmethod
    def cores(self, index: int) -> Cores:
        """Return the cores of block ``index``."""

    def qkv(self, block: FrozenBlock, u: Tensor) -> Tensor:
        """Return qkv(u), each of q, k and v with s v M u added."""
        cores, inner = self.cores(block.index), u @ self.u.T
        changes = [self._out(block, inner @ core.T) for core in (cores.q, cores.k, cores.v)]
        return block.qkv(u) + torch.cat(changes, dim=-1)

    def proj(self, block: FrozenBlock, heads: Tensor) -> Tensor:
        """Return proj(heads) + s v M u of the heads' outputs."""
        return block.proj(heads) + self._out(block, heads @ self.u.T @ self.cores(block.index).proj.T)

    def fc1(self, block: FrozenBlock, u: Tensor) -> Tensor:
        """Return fc1(u), to each of whose slices s v M_j u is added."""
        hidden = u @ self.u.T @ self.cores(block.index).fc1.T
        hidden = block.dropout(hidden, self.config.dropout).unflatten(-1, (self.slices, -1))
        return block.fc1(u) + self.config.scale * (hidden @ self.v.T).flatten(-2)

    def fc2(self, block: FrozenBlock, hidden: Tensor) -> Tensor:
        """Return fc2(hidden) + s v sum_j M_j u over the slices j of the hidden values."""
        inner = (hidden.unflatten(-1, (self.slices, -1)) @ self.u.T).flatten(-2)
        return block.fc2(hidden) + self._out(block, inner @ self.cores(block.index).fc2.T)

    def _out(self, block: FrozenBlock, inner: Tensor) -> Tensor:
        return self.config.scale * block.dropout(inner, self.config.dropout) @ self.v.T

    def merge(self, weights: dict[str, Tensor]) -> None:
        """Add s v M u to every piece of the weights."""
        for index in range(sum(name.endswith("attn.qkv.weight") for name in weights)):
            cores, rank = self.cores(index), len(self.u)
            pieces = {
                "attn.qkv": torch.cat([self._delta(core) for core in (cores.q, cores.k, cores.v)]),
                "attn.proj": self._delta(cores.proj),
                "mlp.fc1": torch.cat([self._delta(core) for core in cores.fc1.split(rank)]),
                "mlp.fc2": torch.cat([self._delta(core) for core in cores.fc2.split(rank, dim=1)], dim=1),
            }
            for part, delta in pieces.items():
                name = f"blocks.{index}.{part}.weight"
                weights[name] = weights[name] + delta

    def _delta(self, core: Tensor) -> Tensor:
        return self.config.scale * self.v @ core @ self.u


class FactTt(Fact):
    """FacT-TT: the cores are free parameters."""

    def __init__(self, backbone: VisionTransformer, config: FactTtConfig) -> None:
        super().__init__(backbone, config)
        depth, rank, wide = len(backbone.blocks), config.rank, self.slices * config.rank
        self.core_q = _cores(depth, rank, rank)
        self.core_k = _cores(depth, rank, rank)
        self.core_v = _cores(depth, rank, rank)
        self.core_proj = _cores(depth, rank, rank)
        self.core_fc1 = _cores(depth, wide, rank)
        self.core_fc2 = _cores(depth, rank, wide)

    def cores(self, index: int) -> Cores:
        """Return the parameters of block ``index``."""
        lists = (self.core_q, self.core_k, self.core_v, self.core_proj, self.core_fc1, self.core_fc2)
        return Cores(*(cores[index] for cores in lists))


class FactTk(Fact):
    """FacT-TK: the cores of all blocks follow from ``c`` (r, r, r) and ``p`` (r, pieces x blocks)."""

    def __init__(self, backbone: VisionTransformer, config: FactTtConfig) -> None:
        super().__init__(backbone, config)
        rank, self.pieces = config.rank, 4 + 2 * self.slices
        self.c = nn.Parameter(torch.empty(rank, rank, rank))
        self.p = nn.Parameter(torch.empty(rank, self.pieces * len(backbone.blocks)))
        nn.init.xavier_uniform_(self.c)
        nn.init.xavier_uniform_(self.p)

    def cores(self, index: int) -> Cores:
        """Return the cores of block ``index``; as in the authors' code, the slices of fc1 and of fc2 interleave."""
        start = self.pieces * index
        every = self.c @ self.p[:, start : start + self.pieces]
        q, k, v, proj = (every[:, :, piece].T for piece in range(4))
        # Row-major, the piece is the fastest index: slices of r columns mix all pieces.
        fc1, fc2 = (pieces.flatten(1) for pieces in every[:, :, 4:].split(self.slices, dim=2))
        return Cores(q, k, v, proj, fc1.T, fc2)


def _slices(backbone: VisionTransformer) -> int:
    width, hidden = backbone.embed_dim, backbone.blocks[0].mlp.fc1.out_features
    if hidden % width:
        raise InputError(f"FacT needs an MLP whose width is a multiple of the backbone's: {hidden} is none of {width}")
    return int(hidden // width)


def _cores(depth: int, out: int, width: int) -> nn.ParameterList:
    cores = nn.ParameterList(torch.empty(out, width) for _ in range(depth))
    for core in cores:
        nn.init.kaiming_uniform_(core, a=math.sqrt(5))
    return cores
