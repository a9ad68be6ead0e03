"""The interface of an adapter: the sites of a pre-norm ViT at which it may act."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar, cast

from torch import Tensor, nn

from shipbench.adapting.block import FrozenBlock
from shipbench.errors import InputError

Part = TypeVar("Part", bound=nn.Module)


class Adapter(nn.Module):
    """What a method adds to a frozen ViT.

    Subclass it, keep the trained modules in it, and override the sites that the method changes. A block computes::

        u = norm1(x)        h   = x + drop_path(attention(u))     attention = ls1 . proj . heads . qkv
        u = norm2(h)        out = h + drop_path(mlp(u))           mlp       = ls2 . fc2 . act . fc1

    A site receives its ``block`` (``block.index`` counts from 0) and the input of the part it stands for, and returns
    that part's output; ``block.qkv(u)`` and its like are the frozen parts. The base class changes nothing.
    """

    def trains(self, name: str) -> bool:
        """Return whether the backbone's tensor ``name`` (timm's) is trained too; the rest stays frozen."""
        return False

    def learned(self) -> Mapping[str, float | Tensor]:
        """Return trained numbers for the record, by name; a tensor holds one. The base class has none."""
        return {}

    def merge(self, weights: dict[str, Tensor]) -> None:
        """Change the backbone's ``weights`` (by timm's names) so that it alone computes what the adapted model does.

        Raises ``InputError`` if no weights do: the base class.
        """
        raise InputError("its adapters cannot be merged into the backbone, because they are not linear maps")

    def patches(self, tokens: Tensor) -> Tensor:
        """Return the embedded patches (B, N - 1, D) after the patch projection, before positions are added."""
        return tokens

    def attention_residual(self, block: FrozenBlock, x: Tensor) -> Tensor:
        """Return h = x + attention(LN1(x)), (B, N, D)."""
        return x + block.drop_path(self.attention(block, self.norm1(block, x)))

    def mlp_residual(self, block: FrozenBlock, h: Tensor) -> Tensor:
        """Return the block's output h + mlp(LN2(h)), (B, N, D)."""
        return h + block.drop_path(self.mlp(block, self.norm2(block, h)))

    def attention(self, block: FrozenBlock, u: Tensor) -> Tensor:
        """Return the attention branch (B, N, D) of its input ``u``."""
        return block.ls1(self.proj(block, block.attend(self.qkv(block, u))))

    def mlp(self, block: FrozenBlock, u: Tensor) -> Tensor:
        """Return the MLP branch (B, N, D) of its input ``u``."""
        return block.ls2(self.fc2(block, block.act(self.fc1(block, u))))

    def norm1(self, block: FrozenBlock, x: Tensor) -> Tensor:
        """Return the attention's input (B, N, D) of the block's input ``x``."""
        return block.norm1(x)

    def qkv(self, block: FrozenBlock, u: Tensor) -> Tensor:
        """Return queries, keys and values (B, N, 3D) of the attention's input ``u``."""
        return block.qkv(u)

    def proj(self, block: FrozenBlock, heads: Tensor) -> Tensor:
        """Return the output projection (B, N, D) of the heads' outputs (B, N, D)."""
        return block.proj(heads)

    def norm2(self, block: FrozenBlock, h: Tensor) -> Tensor:
        """Return the MLP's input (B, N, D) of the state ``h`` after the attention's residual."""
        return block.norm2(h)

    def fc1(self, block: FrozenBlock, u: Tensor) -> Tensor:
        """Return the hidden values (B, N, 4D) of the MLP's input ``u``, before the activation."""
        return block.fc1(u)

    def fc2(self, block: FrozenBlock, hidden: Tensor) -> Tensor:
        """Return the MLP's output (B, N, D) of its hidden values (B, N, 4D), after the activation."""
        return block.fc2(hidden)

    def final_norm(self, normed: Tensor) -> Tensor:
        """Return what follows the backbone's final norm, whose output is ``normed``.

        These are tokens (B, N, D), or features (B, D) where the norm comes after pooling.
        """
        return normed


class PerBlock(nn.ModuleList, Generic[Part]):
    """One module of a class for each block, by the block's index."""

    def __getitem__(self, index: int) -> Part:  # type: ignore[override]
        """Return the module of block ``index``."""
        return cast("Part", super().__getitem__(index))

    def __iter__(self) -> Iterator[Part]:
        """Iterate over the modules in the order of the blocks."""
        return cast("Iterator[Part]", super().__iter__())


def per_block(depth: int, make: Callable[[], Part]) -> PerBlock[Part]:
    """Return one new module for each of ``depth`` blocks."""
    return PerBlock(make() for _ in range(depth))
