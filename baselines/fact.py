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

from shipbench.adapting import Adapter, FrozenBlock, add_to_weight
from shipbench.errors import InputError

from .settings import FactTtConfig


class AttentionCores(NamedTuple):
    """The cores M of q, k, v and proj in one block, (out, in): r x r each."""

    q: Tensor
    k: Tensor
    v: Tensor
    proj: Tensor


class MlpCores(NamedTuple):
    """The cores M of fc1 in one block, stacked to (m r, r), and those of fc2, to (r, m r)."""

    fc1: Tensor
    fc2: Tensor


class Fact(Adapter):
    """W + s v M_m u for every piece m of the weights; a subclass provides the cores.

    ``config`` may leave out the weights of the attention or of the MLP, and give u and v to each block.
    """

    def __init__(self, backbone: VisionTransformer, config: FactTtConfig) -> None:
        super().__init__()
        self.config = config
        width, self.depth = backbone.embed_dim, len(backbone.blocks)
        rank = config.rank if config.at_attention or config.at_mlp else 0
        self.slices = _slices(backbone, config) if config.at_mlp else 0
        owners = () if config.shared_factors else (self.depth,)
        self.u = nn.Parameter(_projections(*owners, rank, width))
        self.v = nn.Parameter(torch.zeros(*owners, width, rank))

    @abstractmethod
    def attention_cores(self, index: int) -> AttentionCores:
        """Return the cores of block ``index`` for qkv and proj."""

    @abstractmethod
    def mlp_cores(self, index: int) -> MlpCores:
        """Return the cores of block ``index`` for fc1 and fc2."""

    def factors(self, index: int) -> tuple[Tensor, Tensor]:
        """Return u (r, D) and v (D, r) of block ``index``."""
        return (self.u, self.v) if self.config.shared_factors else (self.u[index], self.v[index])

    def qkv(self, block: FrozenBlock, u: Tensor) -> Tensor:
        """Return qkv(u), each of q, k and v with s v M u added."""
        if not self.config.at_attention:
            return block.qkv(u)
        *cores, _ = self.attention_cores(block.index)
        inner = u @ self.factors(block.index)[0].T
        changes = [self._out(block, inner @ core.T) for core in cores]
        return block.qkv(u) + torch.cat(changes, dim=-1)

    def proj(self, block: FrozenBlock, heads: Tensor) -> Tensor:
        """Return proj(heads) + s v M u of the heads' outputs."""
        if not self.config.at_attention:
            return block.proj(heads)
        inner = heads @ self.factors(block.index)[0].T
        return block.proj(heads) + self._out(block, inner @ self.attention_cores(block.index).proj.T)

    def mlp(self, block: FrozenBlock, u: Tensor) -> Tensor:
        """Return the MLP branch, in which fc1 and fc2 change."""
        if not self.config.at_mlp:
            return super().mlp(block, u)
        return block.ls2(self._fc2(block, block.act(self._fc1(block, u))))

    def _fc1(self, block: FrozenBlock, u: Tensor) -> Tensor:
        """Return fc1(u), to each of whose slices s v M_j u is added."""
        inward, outward = self.factors(block.index)
        hidden = u @ inward.T @ self.mlp_cores(block.index).fc1.T
        hidden = block.dropout(hidden, self.config.dropout).unflatten(-1, (self.slices, -1))
        return block.fc1(u) + self.config.scale * (hidden @ outward.T).flatten(-2)

    def _fc2(self, block: FrozenBlock, hidden: Tensor) -> Tensor:
        """Return fc2(hidden) + s v sum_j M_j u over the slices j of the hidden values."""
        inner = (hidden.unflatten(-1, (self.slices, -1)) @ self.factors(block.index)[0].T).flatten(-2)
        return block.fc2(hidden) + self._out(block, inner @ self.mlp_cores(block.index).fc2.T)

    def _out(self, block: FrozenBlock, inner: Tensor) -> Tensor:
        outward = self.factors(block.index)[1]
        return self.config.scale * block.dropout(inner, self.config.dropout) @ outward.T

    def merge(self, weights: dict[str, Tensor]) -> None:
        """Add s v M u to every piece of the weights."""
        for index in range(self.depth):
            for part, delta in self._deltas(index).items():
                add_to_weight(weights, f"blocks.{index}.{part}", delta)

    def _deltas(self, index: int) -> dict[str, Tensor]:
        """Return the change of every weight of block ``index``."""
        (u, v), rank = self.factors(index), self.config.rank
        deltas: dict[str, Tensor] = {}

        def delta(core: Tensor) -> Tensor:
            return self.config.scale * v @ core @ u

        if self.config.at_attention:
            *qkv, proj = self.attention_cores(index)
            deltas |= {"attn.qkv": torch.cat([delta(core) for core in qkv]), "attn.proj": delta(proj)}
        if self.config.at_mlp:
            fc1, fc2 = self.mlp_cores(index)
            deltas["mlp.fc1"] = torch.cat([delta(core) for core in fc1.split(rank)])
            deltas["mlp.fc2"] = torch.cat([delta(core) for core in fc2.split(rank, dim=1)], dim=1)
        return deltas


class FactTt(Fact):
    """FacT-TT: the cores are free parameters."""

    def __init__(self, backbone: VisionTransformer, config: FactTtConfig) -> None:
        super().__init__(backbone, config)
        depth, rank, wide = len(backbone.blocks), config.rank, self.slices * config.rank
        in_attention, in_mlp = (depth if included else 0 for included in (config.at_attention, config.at_mlp))
        self.core_q = _cores(in_attention, rank, rank)
        self.core_k = _cores(in_attention, rank, rank)
        self.core_v = _cores(in_attention, rank, rank)
        self.core_proj = _cores(in_attention, rank, rank)
        self.core_fc1 = _cores(in_mlp, wide, rank)
        self.core_fc2 = _cores(in_mlp, rank, wide)

    def attention_cores(self, index: int) -> AttentionCores:
        """Return the parameters of block ``index`` for qkv and proj."""
        return AttentionCores(self.core_q[index], self.core_k[index], self.core_v[index], self.core_proj[index])

    def mlp_cores(self, index: int) -> MlpCores:
        """Return the parameters of block ``index`` for fc1 and fc2."""
        return MlpCores(self.core_fc1[index], self.core_fc2[index])


class FactTk(Fact):
    """FacT-TK: the cores of all blocks follow from ``c`` (r, r, r) and ``p`` (r, pieces x blocks)."""

    def __init__(self, backbone: VisionTransformer, config: FactTtConfig) -> None:
        super().__init__(backbone, config)
        rank = self.v.shape[-1]
        self.in_attention = 4 if config.at_attention else 0
        self.pieces = self.in_attention + (2 * self.slices if config.at_mlp else 0)
        self.c = nn.Parameter(torch.empty(rank, rank, rank))
        self.p = nn.Parameter(torch.empty(rank, self.pieces * len(backbone.blocks)))
        if self.pieces:
            nn.init.xavier_uniform_(self.c)
            nn.init.xavier_uniform_(self.p)

    def attention_cores(self, index: int) -> AttentionCores:
        """Return the cores of block ``index`` for qkv and proj."""
        every = self._pieces(index)
        return AttentionCores(*(every[:, :, piece].T for piece in range(4)))

    def mlp_cores(self, index: int) -> MlpCores:
        """Return the cores of block ``index``; as in the authors' code, the slices of fc1 and of fc2 interleave."""
        every = self._pieces(index)[:, :, self.in_attention :]
        # Row-major, the piece is the fastest index: slices of r columns mix all pieces.
        fc1, fc2 = (pieces.flatten(1) for pieces in every.split(self.slices, dim=2))
        return MlpCores(fc1.T, fc2)

    def _pieces(self, index: int) -> Tensor:
        """Return c times the columns of p for block ``index``, (r, r, pieces)."""
        return self.c @ self.p[:, self.pieces * index : self.pieces * (index + 1)]


def _slices(backbone: VisionTransformer, config: FactTtConfig) -> int:
    mlp = backbone.blocks[0].mlp
    if reason := config.why_unusable(type(mlp).__name__):
        raise InputError(f"{reason}; set at_mlp=false")
    width, hidden = backbone.embed_dim, mlp.fc1.out_features
    if hidden % width:
        raise InputError(
            f"FacT needs an MLP whose width is a multiple of the backbone's, but {hidden} is none of {width}; set "
            "at_mlp=false, or choose another backbone"
        )
    return int(hidden // width)


def _cores(depth: int, out: int, width: int) -> nn.ParameterList:
    cores = nn.ParameterList(torch.empty(out, width) for _ in range(depth))
    for core in cores:
        nn.init.kaiming_uniform_(core, a=math.sqrt(5))
    return cores


def _projections(*shape: int) -> Tensor:
    """Return one matrix (r, D), or one for each block, drawn as the weight of a linear layer."""
    matrices = torch.empty(*shape)
    if matrices.numel():
        for matrix in matrices.reshape(-1, *shape[-2:]):
            nn.init.kaiming_uniform_(matrix, a=math.sqrt(5))
    return matrices
