"""The zoo, literally: each method's block as one function of plain tensors, in evaluation mode.

Tensors have the official names of ``shipbench_baselines.load_official``. Sources: the papers that the modules in
``baselines`` name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from tests.reference.vit import attend, attention_logits, merge_heads

Tensors = Mapping[str, Tensor]
Shapes = dict[str, tuple[int, ...]]
Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class At:
    """Block ``index`` with the trained tensors and the authors' configuration."""

    index: int
    vit: VisionTransformer
    tensors: Tensors
    config: Mapping[str, Any]

    @property
    def block(self) -> Block:
        return self.vit.blocks[self.index]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[f"blocks.{self.index}.{name}"]

    def linear(self, name: str, values: Tensor) -> Tensor:
        return F.linear(values, self[f"{name}.weight"], self[f"{name}.bias"])

    def attention(self, u: Tensor, qkv: Run | None = None, proj: Run | None = None) -> Tensor:
        attention = self.block.attn
        fused = (qkv or attention.qkv)(u)
        batch, length, _ = u.shape
        q, k, v = fused.reshape(batch, length, 3, attention.num_heads, attention.head_dim).permute(2, 0, 3, 1, 4)
        heads = merge_heads(attend(attention_logits(attention.q_norm(q), attention.k_norm(k)), v))
        return self.block.ls1((proj or attention.proj)(heads))

    def mlp(self, u: Tensor, fc1: Run | None = None, fc2: Run | None = None) -> Tensor:
        mlp = self.block.mlp
        return self.block.ls2((fc2 or mlp.fc2)(F.gelu((fc1 or mlp.fc1)(u))))


def plain(at: At, x: Tensor) -> Tensor:
    return after_attention(at, x) + at.mlp(at.block.norm2(after_attention(at, x)))


def after_attention(at: At, x: Tensor) -> Tensor:
    return x + at.attention(at.block.norm1(x))


def lora(at: At, x: Tensor) -> Tensor:
    """Every one of the 3D rows of qkv gets s sum_r b_r (a_r . u)."""
    scale = at.config["alpha"] / at.config["rank"] if "alpha" in at.config else at.config.get("scale", 1.0)

    def qkv(u: Tensor) -> Tensor:
        return at.block.attn.qkv(u) + scale * torch.einsum("or,rd,bnd->bno", at["lora.b"], at["lora.a"], u)

    h = x + at.attention(at.block.norm1(x), qkv)
    return h + at.mlp(at.block.norm2(h))


def lora_qv(at: At, x: Tensor) -> Tensor:
    def change(name: str, u: Tensor) -> Tensor:
        return at.config["scale"] * torch.einsum("or,rd,bnd->bno", at[f"{name}.b"], at[f"{name}.a"], u)

    def qkv(u: Tensor) -> Tensor:
        changes = [change("lora_q", u), torch.zeros_like(u), change("lora_v", u)]
        return at.block.attn.qkv(u) + torch.cat(changes, dim=2)

    h = x + at.attention(at.block.norm1(x), qkv)
    return h + at.mlp(at.block.norm2(h))


def adaptformer(at: At, x: Tensor) -> Tensor:
    h = after_attention(at, x)
    hidden = at.linear("adaptformer.down", h).clamp(min=0)
    return h + at.mlp(at.block.norm2(h)) + at.config["scale"] * at.linear("adaptformer.up", hidden)


def ssf(at: At, x: Tensor) -> Tensor:
    def after(name: str, run: Run) -> Run:
        return lambda values: at[f"ssf.{name}.scale"] * run(values) + at[f"ssf.{name}.shift"]

    block = at.block
    h = x + at.attention(after("norm1", block.norm1)(x), after("qkv", block.attn.qkv), after("proj", block.attn.proj))
    return h + at.mlp(after("norm2", block.norm2)(h), after("fc1", block.mlp.fc1), after("fc2", block.mlp.fc2))


def swish(values: Tensor) -> Tensor:
    return values / (1 + torch.exp(-1.702 * values))


def bypass(at: At, name: str, u: Tensor) -> Tensor:
    """Tap by tap: a patch at (i, j) reads its neighbours at (i + di, j + dj); other tokens have no neighbours."""
    hidden = swish(at.linear(f"{name}.down", u))
    weight, prefix = at[f"{name}.conv.weight"], at.vit.num_prefix_tokens
    rows, columns = at.vit.patch_embed.grid_size
    outputs = []
    for token in range(u.shape[1]):
        total = at[f"{name}.conv.bias"] + hidden[:, token] @ weight[:, :, 1, 1].T
        if token >= prefix:
            i, j = divmod(token - prefix, columns)
            for di, dj in ((a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)):
                if 0 <= i + di < rows and 0 <= j + dj < columns:
                    other = prefix + (i + di) * columns + j + dj
                    total = total + hidden[:, other] @ weight[:, :, 1 + di, 1 + dj].T
        outputs.append(total)
    return at.linear(f"{name}.up", swish(torch.stack(outputs, dim=1)))


def convpass_attn(at: At, x: Tensor) -> Tensor:
    u = at.block.norm1(x)
    h = x + at.attention(u) + at.config["scale"] * bypass(at, "convpass_attn", u)
    return h + at.mlp(at.block.norm2(h))


def convpass(at: At, x: Tensor) -> Tensor:
    u = at.block.norm1(x)
    h = x + at.attention(u) + at.config["scale"] * bypass(at, "convpass_attn", u)
    u = at.block.norm2(h)
    return h + at.mlp(u) + at.config["scale"] * bypass(at, "convpass_mlp", u)


def fact(at: At, x: Tensor, cores: list[Tensor]) -> Tensor:
    """Run a block with changed weights: each D x D piece m has s v M_m u added to it."""
    u, v = at.tensors["fact.u"], at.tensors["fact.v"]
    deltas = [at.config["scale"] * v @ core @ u for core in cores]
    slices = (len(deltas) - 4) // 2
    block = at.block

    def changed(layer: nn.Linear, delta: Tensor) -> Run:
        return lambda values: F.linear(values, layer.weight + delta, layer.bias)

    qkv, proj = changed(block.attn.qkv, torch.cat(deltas[:3])), changed(block.attn.proj, deltas[3])
    fc1 = changed(block.mlp.fc1, torch.cat(deltas[4 : 4 + slices]))
    fc2 = changed(block.mlp.fc2, torch.cat(deltas[4 + slices :], dim=1))
    h = x + at.attention(block.norm1(x), qkv, proj)
    return h + at.mlp(block.norm2(h), fc1, fc2)


def fact_tt(at: At, x: Tensor) -> Tensor:
    rank = at.config["rank"]
    stored = {name: at.tensors[f"fact.blocks.{at.index}.{name}"] for name in ("q", "k", "v", "proj", "fc1", "fc2")}
    slices = len(stored["fc1"]) // rank
    parts = [slice(j * rank, (j + 1) * rank) for j in range(slices)]
    cores = [stored[name] for name in ("q", "k", "v", "proj")]
    cores += [stored["fc1"][part] for part in parts] + [stored["fc2"][:, part] for part in parts]
    return fact(at, x, cores)


def fact_tk(at: At, x: Tensor) -> Tensor:
    c, p, rank = at.tensors["fact.c"], at.tensors["fact.p"], at.config["rank"]
    slices = at.block.mlp.fc1.out_features // at.vit.embed_dim
    pieces = 4 + 2 * slices
    every = [torch.einsum("abc,c->ab", c, p[:, pieces * at.index + m]) for m in range(pieces)]

    def interleaved(matrices: list[Tensor], part: int) -> Tensor:
        """Columns part * r ... of the row-major flattening, in which column b of piece m is column b * slices + m."""
        columns = [matrices[j % slices][:, j // slices] for j in range(part * rank, (part + 1) * rank)]
        return torch.stack(columns, dim=1)

    cores = [core.T for core in every[:4]]
    cores += [interleaved(every[4 : 4 + slices], part).T for part in range(slices)]
    cores += [interleaved(every[4 + slices :], part) for part in range(slices)]
    return fact(at, x, cores)


def rep(at: At, name: str, u: Tensor) -> Tensor:
    hidden = u @ at[f"{name}.a.weight"][:, :, 0].T + at[f"{name}.a.bias"]
    half_out, half = u.shape[2] // 2, hidden.shape[2] // 2
    weight = at[f"{name}.b.weight"][:, :, 0]
    first, second = hidden[..., :half] @ weight[:half_out].T, hidden[..., half:] @ weight[half_out:].T
    return u + at.config["scale"] * (torch.cat([first, second], dim=2) + at[f"{name}.b.bias"])


def repadapter_attn(at: At, x: Tensor) -> Tensor:
    h = x + at.attention(rep(at, "repadapter_attn", at.block.norm1(x)))
    return h + at.mlp(at.block.norm2(h))


def repadapter(at: At, x: Tensor) -> Tensor:
    h = x + at.attention(rep(at, "repadapter_attn", at.block.norm1(x)))
    return h + at.mlp(rep(at, "repadapter_mlp", at.block.norm2(h)))


def bottleneck(at: At, name: str, values: Tensor, act: Run = F.gelu) -> Tensor:
    return at.linear(f"{name}.up", act(at.linear(f"{name}.down", values)))


def adapter_noah(at: At, x: Tensor) -> Tensor:
    h = after_attention(at, x)
    t = at.mlp(at.block.norm2(h))
    return h + t + bottleneck(at, "adapter", t, swish)


def adapter_vpt(at: At, x: Tensor) -> Tensor:
    h = after_attention(at, x)
    t = at.mlp(at.block.norm2(h))
    return h + t + bottleneck(at, "adapter", t)


def adapter_houlsby(at: At, x: Tensor) -> Tensor:
    t = at.attention(at.block.norm1(x))
    h = x + t + at.config["scaling"] * bottleneck(at, "adapter_attn", t)
    t = at.mlp(at.block.norm2(h))
    return h + t + at.config["scaling"] * bottleneck(at, "adapter", t)


def adapter_pfeiffer(at: At, x: Tensor) -> Tensor:
    h = after_attention(at, x)
    t = at.mlp(at.block.norm2(h))
    y = h + t
    normed = (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()
    normed = normed * at["adapter.norm.weight"] + at["adapter.norm.bias"]
    return h + t + at.config["scaling"] * bottleneck(at, "adapter", normed)


def adapter_plus(at: At, x: Tensor) -> Tensor:
    y = plain(at, x)
    return y + at["adapter.scale"] * bottleneck(at, "adapter", y)


def difffit(at: At, x: Tensor) -> Tensor:
    h = x + at["difffit.gamma1"] * at.attention(at.block.norm1(x))
    return h + at["difffit.gamma2"] * at.mlp(at.block.norm2(h))


BLOCKS: dict[str, Callable[[At, Tensor], Tensor]] = {
    "adapter_houlsby": adapter_houlsby,
    "adapter_noah": adapter_noah,
    "adapter_pfeiffer": adapter_pfeiffer,
    "adapter_plus": adapter_plus,
    "adapter_vpt": adapter_vpt,
    "adaptformer": adaptformer,
    "bitfit": plain,
    "convpass": convpass,
    "convpass_attn": convpass_attn,
    "difffit": difffit,
    "fact_tk": fact_tk,
    "fact_tt": fact_tt,
    "ln_tuning": plain,
    "lora_noah": lora,
    "lora_peft": lora,
    "lora_qv": lora_qv,
    "partial": plain,
    "repadapter": repadapter,
    "repadapter_attn": repadapter_attn,
    "ssf": ssf,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "adapter_houlsby": {"dim": 5, "scaling": 0.7, "drop_path": 0.1, "train_layer_norms": True},
    "adapter_noah": {"dim": 5},
    "adapter_pfeiffer": {"dim": 5, "scaling": 0.7, "drop_path": 0.1},
    "adapter_plus": {"dim": 5, "scaling": "channel", "drop_path": 0.1},
    "adapter_vpt": {"dim": 5},
    "adaptformer": {"dim": 5, "scale": 0.3},
    "bitfit": {},
    "convpass": {"dim": 3, "scale": 0.6},
    "convpass_attn": {"dim": 3, "scale": 0.6},
    "difffit": {},
    "fact_tk": {"rank": 3, "scale": 0.8},
    "fact_tt": {"rank": 3, "scale": 0.8},
    "ln_tuning": {},
    "lora_noah": {"rank": 3, "scale": 1.0},
    "lora_peft": {"rank": 3, "alpha": 5},
    "lora_qv": {"rank": 3, "scale": 0.4},
    "partial": {"blocks": 2},
    "repadapter": {"dim": 4, "scale": 0.9},
    "repadapter_attn": {"dim": 4, "scale": 0.9},
    "ssf": {},
}


class Literal(nn.Module):
    """A method's pass; trained backbone tensors are given by ``torch.func.functional_call``."""

    def __init__(self, vit: VisionTransformer, method: str, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.vit, self.method, self.config = vit, method, config

    def forward(self, tensors: Tensors, images: Tensor) -> Tensor:
        vit = self.vit
        patches = vit.patch_embed(images)
        if self.method == "ssf":
            patches = tensors["ssf.patch_embed.scale"] * patches + tensors["ssf.patch_embed.shift"]
        tokens = vit.norm_pre(vit._pos_embed(patches))
        for index in range(len(vit.blocks)):
            tokens = BLOCKS[self.method](At(index, vit, tensors, self.config), tokens)
        cls = vit.norm(tokens)[:, 0]
        if self.method == "ssf":
            cls = tensors["ssf.norm.scale"] * cls + tensors["ssf.norm.shift"]
        return F.linear(cls, tensors["head.weight"], tensors["head.bias"])


def logits(method: str, vit: VisionTransformer, tensors: Tensors, config: Mapping[str, Any], images: Tensor) -> Tensor:
    """The logits (B, C) of a method with the given trained tensors."""
    own = {f"vit.{name}": value for name, value in tensors.items() if name in dict(vit.named_parameters())}
    result: Tensor = torch.func.functional_call(Literal(vit, method, config), own, (tensors, images))
    return result


def shapes(method: str, vit: VisionTransformer, config: Mapping[str, Any], classes: int) -> Shapes:
    """The official names and shapes of all trained tensors."""
    width, depth = vit.embed_dim, len(vit.blocks)
    found = {name: shape for i in range(depth) for name, shape in _of_block(method, vit, config, i)}
    if method.startswith("fact"):
        rank = config["rank"]
        found |= {"fact.u": (rank, width), "fact.v": (width, rank)}
    if method == "fact_tk":
        pieces = 4 + 2 * vit.blocks[0].mlp.fc1.out_features // width
        found |= {"fact.c": (rank, rank, rank), "fact.p": (rank, pieces * depth)}
    if method == "ssf":
        found |= {f"ssf.{part}.{kind}": (width,) for part in ("patch_embed", "norm") for kind in ("scale", "shift")}
    own = {
        name: tuple(value.shape) for name, value in vit.named_parameters() if _is_trained(method, name, config, depth)
    }
    return found | own | {"head.weight": (classes, width), "head.bias": (classes,)}


def _is_trained(method: str, name: str, config: Mapping[str, Any], depth: int) -> bool:
    norm = any(part.startswith(("norm", "q_norm", "k_norm")) for part in name.split("."))
    if method == "partial":
        last = [f"blocks.{depth - 1 - k}." for k in range(config["blocks"])]
        return name.startswith(("norm.", *last))
    return {
        "bitfit": name.endswith("bias"),
        "difffit": norm or name.endswith("bias"),
        "ln_tuning": norm,
        "adapter_houlsby": norm,
    }.get(method, False)


def _of_block(
    method: str, vit: VisionTransformer, config: Mapping[str, Any], index: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, hidden = vit.embed_dim, vit.blocks[0].mlp.fc1.out_features
    start, dim, rank = f"blocks.{index}", config.get("dim", 0), config.get("rank", 0)
    if method in ("lora_noah", "lora_peft"):
        yield from ((f"{start}.lora.a", (rank, width)), (f"{start}.lora.b", (3 * width, rank)))
    if method == "lora_qv":
        for name in ("lora_q", "lora_v"):
            yield from ((f"{start}.{name}.a", (rank, width)), (f"{start}.{name}.b", (width, rank)))
    if method == "ssf":
        sizes = {"norm1": width, "qkv": 3 * width, "proj": width, "norm2": width, "fc1": hidden, "fc2": width}
        for name, size in sizes.items():
            yield from ((f"{start}.ssf.{name}.scale", (size,)), (f"{start}.ssf.{name}.shift", (size,)))
    if method == "difffit":
        yield from ((f"{start}.difffit.gamma1", (width,)), (f"{start}.difffit.gamma2", (width,)))
    if method == "fact_tt":
        wide = hidden // width * rank
        for name in ("q", "k", "v", "proj"):
            yield f"fact.{start}.{name}", (rank, rank)
        yield from ((f"fact.{start}.fc1", (wide, rank)), (f"fact.{start}.fc2", (rank, wide)))
    for name in _BOTTLENECKS.get(method, ()):
        yield from ((f"{start}.{name}.down.weight", (dim, width)), (f"{start}.{name}.down.bias", (dim,)))
        yield from ((f"{start}.{name}.up.weight", (width, dim)), (f"{start}.{name}.up.bias", (width,)))
        if method.startswith("convpass"):
            yield from ((f"{start}.{name}.conv.weight", (dim, dim, 3, 3)), (f"{start}.{name}.conv.bias", (dim,)))
    if method == "adapter_pfeiffer":
        yield from ((f"{start}.adapter.norm.weight", (width,)), (f"{start}.adapter.norm.bias", (width,)))
    if method == "adapter_plus":
        yield f"{start}.adapter.scale", (width,)
    if method.startswith("repadapter"):
        for name in ("repadapter_attn", "repadapter_mlp")[: 2 if method == "repadapter" else 1]:
            yield from ((f"{start}.{name}.a.weight", (dim, width, 1)), (f"{start}.{name}.a.bias", (dim,)))
            yield from ((f"{start}.{name}.b.weight", (width, dim // 2, 1)), (f"{start}.{name}.b.bias", (width,)))


_BOTTLENECKS = {
    "adaptformer": ("adaptformer",),
    "convpass": ("convpass_attn", "convpass_mlp"),
    "convpass_attn": ("convpass_attn",),
    "adapter_noah": ("adapter",),
    "adapter_vpt": ("adapter",),
    "adapter_pfeiffer": ("adapter",),
    "adapter_plus": ("adapter",),
    "adapter_houlsby": ("adapter", "adapter_attn"),
}
