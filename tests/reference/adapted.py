"""Every adapter with each of its settings, literally, with dropout and stochastic depth.

Tensors are those of a whole model by its own names: ``backbone.*`` (timm's), ``adapter.*`` and ``head.*``. The backbone
is a plain ViT with a class token; nothing is computed by timm. Sources: the papers that the modules in ``baselines``
name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Run = Callable[[Tensor], Tensor]


@dataclass
class Masks:
    """The random masks of a pass in the order in which it asks for them; none without a ``generator``."""

    generator: torch.Generator | None = None
    drawn: list[Tensor] = field(default_factory=list)

    def dropout(self, values: Tensor, rate: float) -> Tensor:
        return self._masked(values, rate, tuple(values.shape))

    def path(self, branch: Tensor, rate: float) -> Tensor:
        return self._masked(branch, rate, (len(branch), 1, 1))

    def _masked(self, values: Tensor, rate: float, shape: tuple[int, ...]) -> Tensor:
        if self.generator is None or rate == 0:
            return values
        mask = (torch.rand(shape, generator=self.generator, dtype=torch.float64) >= rate).double()
        self.drawn.append(mask)
        return values * mask / (1 - rate)


@dataclass(frozen=True)
class Vit:
    """The shape of the backbone; ``gate`` is the half of an MLP's hidden values that is its gate, ``""`` for none."""

    width: int
    depth: int
    heads: int
    patch: int
    grid: tuple[int, int]
    gate: Literal["", "first", "last"] = ""


@dataclass(frozen=True)
class At:
    """Block ``index`` in a pass: all tensors, the method's settings, the masks, and the rate of stochastic depth."""

    index: int
    vit: Vit
    tensors: Mapping[str, Tensor]
    settings: Any
    masks: Masks
    rate: float

    def own(self, name: str) -> Tensor:
        """A tensor of the adapter; ``{}`` stands for the index of the block."""
        return self.tensors[f"adapter.{name.format(self.index)}"]

    def has(self, name: str) -> bool:
        return f"backbone.blocks.{self.index}.{name}.weight" in self.tensors

    def frozen(self, name: str, values: Tensor) -> Tensor:
        """A linear layer of the block."""
        start = f"backbone.blocks.{self.index}.{name}"
        return values @ self.tensors[f"{start}.weight"].T + self.tensors[f"{start}.bias"]

    def norm(self, name: str, values: Tensor) -> Tensor:
        start = f"backbone.blocks.{self.index}.{name}"
        return layer_norm(values, self.tensors[f"{start}.weight"], self.tensors[f"{start}.bias"])

    def path(self, branch: Tensor) -> Tensor:
        return self.masks.path(branch, self.rate)

    def dropout(self, values: Tensor) -> Tensor:
        return self.masks.dropout(values, self.settings.dropout)

    def attention(self, u: Tensor, qkv: Run | None = None, proj: Run | None = None) -> Tensor:
        thirds = (qkv(u) if qkv else self.frozen("attn.qkv", u)).chunk(3, dim=2)
        size, heads = self.vit.width // self.vit.heads, []
        for head in range(self.vit.heads):
            q, k, v = (third[..., head * size : (head + 1) * size] for third in thirds)
            heads.append((q @ k.mT / size**0.5).softmax(dim=-1) @ v)
        joined = self.inner_norm("attn.norm", torch.cat(heads, dim=2))
        return proj(joined) if proj else self.frozen("attn.proj", joined)

    def mlp(self, u: Tensor, fc1: Run | None = None, fc2: Run | None = None) -> Tensor:
        hidden = self.inner_norm("mlp.norm", self.activated(fc1(u) if fc1 else self.fc1(u)))
        return fc2(hidden) if fc2 else self.frozen("mlp.fc2", hidden)

    def fc1(self, u: Tensor) -> Tensor:
        layers = ("mlp.fc1_g", "mlp.fc1_x") if self.has("mlp.fc1_g") else ("mlp.fc1",)
        return torch.cat([self.frozen(layer, u) for layer in layers], dim=2)

    def activated(self, hidden: Tensor) -> Tensor:
        if not self.vit.gate:
            return gelu(hidden)
        first, last = hidden.chunk(2, dim=2)
        return silu(first) * last if self.vit.gate == "first" else first * silu(last)

    def inner_norm(self, name: str, values: Tensor) -> Tensor:
        return self.norm(name, values) if self.has(name) else values

    def after_attention(self, x: Tensor) -> Tensor:
        return x + self.path(self.attention(self.norm("norm1", x)))

    def mlp_branch(self, h: Tensor) -> Tensor:
        return self.path(self.mlp(self.norm("norm2", h)))

    def down(self, name: str, act: Run, values: Tensor) -> Tensor:
        hidden = values @ self.own(f"{name}.down.weight").T + self.own(f"{name}.down.bias")
        return act(hidden) if self.settings.activation else hidden

    def up(self, name: str, hidden: Tensor) -> Tensor:
        return hidden @ self.own(f"{name}.up.weight").T + self.own(f"{name}.up.bias")


def layer_norm(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = values - values.mean(dim=-1, keepdim=True)
    return centred / ((centred**2).mean(dim=-1, keepdim=True) + 1e-6).sqrt() * weight + bias


def gelu(t: Tensor) -> Tensor:
    return t * (1 + torch.erf(t / 2**0.5)) / 2


def quick_gelu(t: Tensor) -> Tensor:
    return t / (1 + torch.exp(-1.702 * t))


def silu(t: Tensor) -> Tensor:
    return t / (1 + torch.exp(-t))


def relu(t: Tensor) -> Tensor:
    return t * (t > 0)


def plain(at: At, x: Tensor) -> Tensor:
    h = at.after_attention(x)
    return h + at.mlp_branch(h)


def lora(at: At, x: Tensor) -> Tensor:
    s = at.settings
    factor = s.alpha / s.rank if s.form == "peft" else s.scale
    included = {"q": s.at_query, "k": s.at_key and s.form != "qv", "v": s.at_value}

    def separate(letter: str, u: Tensor) -> Tensor:
        hidden = at.dropout(u @ at.own(f"lora_{letter}.{{}}.a").T)
        return factor * hidden @ at.own(f"lora_{letter}.{{}}.b").T

    def qkv(u: Tensor) -> Tensor:
        if s.form == "qv":
            changes = {letter: separate(letter, u) for letter in "qv" if included[letter]}
        elif any(included.values()):
            rows = factor * at.dropout(u) @ at.own("lora.{}.a").T @ at.own("lora.{}.b").T
            changed = [letter for letter in "qkv" if included[letter]]
            changes = dict(zip(changed, rows.split(at.vit.width, dim=2), strict=True))
        else:
            changes = {}
        return at.frozen("attn.qkv", u) + torch.cat([changes.get(c, torch.zeros_like(u)) for c in "qkv"], dim=2)

    h = x + at.path(at.attention(at.norm("norm1", x), qkv))
    return h + at.mlp_branch(h)


def adaptformer(at: At, x: Tensor) -> Tensor:
    s = at.settings
    scale = at.own("scale.{}") if s.learned_scale else s.scale

    def branch(values: Tensor) -> Tensor:
        return scale * at.up("adaptformer.{}", at.dropout(at.down("adaptformer.{}", relu, values)))

    h = at.after_attention(x)
    if s.placement == "serial":
        t = at.mlp_branch(h)
        return h + t + branch(t)
    beside = branch(h)
    return h + at.mlp_branch(h) + beside


def scale_shift(at: At, name: str, included: bool, values: Tensor) -> Tensor:
    if included and at.settings.scales:
        values = values * at.own(f"{name}.scale")
    return values + at.own(f"{name}.shift") if included and at.settings.shifts else values


def ssf(at: At, x: Tensor) -> Tensor:
    s = at.settings

    def after(name: str, included: bool, run: Run) -> Run:
        return lambda values: scale_shift(at, f"ssf_{name}.{{}}", included, run(values))

    def normed(part: str, values: Tensor) -> Tensor:
        return scale_shift(at, f"ssf_{part}_norm.{{}}", s.at_norms and at.has(f"{part}.norm"), values)

    qkv = after("qkv", s.at_attention, lambda u: at.frozen("attn.qkv", u))
    proj = after("proj", s.at_attention, lambda heads: at.frozen("attn.proj", normed("attn", heads)))
    fc1 = after("fc1", s.at_mlp, at.fc1)
    fc2 = after("fc2", s.at_mlp, lambda hidden: at.frozen("mlp.fc2", normed("mlp", hidden)))
    h = x + at.path(at.attention(after("norm1", s.at_norms, lambda t: at.norm("norm1", t))(x), qkv, proj))
    return h + at.path(at.mlp(after("norm2", s.at_norms, lambda t: at.norm("norm2", t))(h), fc1, fc2))


def bypass(at: At, name: str, u: Tensor) -> Tensor:
    hidden = at.down(name, quick_gelu, u)
    if at.settings.convolution:
        weight, bias, (rows, columns) = at.own(f"{name}.conv.weight"), at.own(f"{name}.conv.bias"), at.vit.grid
        cls, patches = hidden[:, :1], hidden[:, 1:].unflatten(1, (rows, columns))
        framed = F.pad(patches, (0, 0, 1, 1, 1, 1))
        taps = [(i, j) for i in range(3) for j in range(3)]
        image = sum(framed[:, i : i + rows, j : j + columns] @ weight[:, :, i, j].T for i, j in taps)
        hidden = torch.cat([cls @ weight[:, :, 1, 1].T, torch.as_tensor(image).flatten(1, 2)], dim=1) + bias
        hidden = quick_gelu(hidden) if at.settings.activation else hidden
    return at.up(name, at.dropout(hidden))


def convpass(at: At, x: Tensor) -> Tensor:
    s, u = at.settings, at.norm("norm1", x)
    h = x + at.path(at.attention(u))
    if s.at_attention:
        h = h + s.scale * at.path(bypass(at, "convpass_attn.{}", u))
    u = at.norm("norm2", h)
    out = h + at.path(at.mlp(u))
    return out + s.scale * at.path(bypass(at, "convpass_mlp.{}", u)) if s.at_mlp else out


def fact(at: At, x: Tensor, attention: list[Tensor], mlp: list[Tensor]) -> Tensor:
    """Run a block with the cores of q, k, v and proj, and those of the slices of fc1 and then of fc2."""
    s, slices = at.settings, len(mlp) // 2
    u, v = (at.own(name) if s.shared_factors else at.own(name)[at.index] for name in "uv")

    def change(hidden: Tensor) -> Tensor:
        return s.scale * at.dropout(hidden) @ v.T

    def qkv(values: Tensor) -> Tensor:
        parts = [change(values @ u.T @ core.T) for core in attention[:3]]
        return at.frozen("attn.qkv", values) + torch.cat(parts, dim=2)

    def proj(values: Tensor) -> Tensor:
        return at.frozen("attn.proj", values) + change(values @ u.T @ attention[3].T)

    def fc1(values: Tensor) -> Tensor:
        hidden = at.dropout(torch.cat([values @ u.T @ core.T for core in mlp[:slices]], dim=2))
        parts = [s.scale * part @ v.T for part in hidden.chunk(slices, dim=2)]
        return at.frozen("mlp.fc1", values) + torch.cat(parts, dim=2)

    def fc2(values: Tensor) -> Tensor:
        parts = zip(values.chunk(slices, dim=2), mlp[slices:], strict=True)
        return at.frozen("mlp.fc2", values) + change(torch.stack([part @ u.T @ core.T for part, core in parts]).sum(0))

    h = x + at.path(at.attention(at.norm("norm1", x), *((qkv, proj) if s.at_attention else ())))
    return h + at.path(at.mlp(at.norm("norm2", h), *((fc1, fc2) if s.at_mlp else ())))


def slices_of(at: At) -> int:
    return len(at.tensors[f"backbone.blocks.{at.index}.mlp.fc1.bias"]) // at.vit.width


def fact_tt(at: At, x: Tensor) -> Tensor:
    s = at.settings
    attention = [at.own(f"core_{name}.{{}}") for name in ("q", "k", "v", "proj")] if s.at_attention else []
    mlp = [*at.own("core_fc1.{}").split(s.rank), *at.own("core_fc2.{}").split(s.rank, dim=1)] if s.at_mlp else []
    return fact(at, x, attention, mlp)


def fact_tk(at: At, x: Tensor) -> Tensor:
    s = at.settings
    first, slices = 4 if s.at_attention else 0, slices_of(at) if s.at_mlp else 0
    pieces = first + (2 * slices if s.at_mlp else 0)
    columns = at.own("p").unflatten(1, (at.vit.depth, pieces))[:, at.index] if pieces else at.own("p")
    # Entry (a, b, m) of the pieces: sum_c core(a, b, c) p(c, m).
    every = torch.einsum("abc,cm->abm", at.own("c"), columns)
    attention = [every[:, :, m].T for m in range(first)]

    def cut(wide: Tensor) -> list[Tensor]:
        """Matrices of r columns of the row-major (r, slices r), whose column of piece m and index b is b slices + m."""
        return [wide.reshape(s.rank, -1)[:, j * s.rank : (j + 1) * s.rank] for j in range(slices)]

    mlp = [core.T for core in cut(every[:, :, first : first + slices])] if s.at_mlp else []
    mlp += cut(every[:, :, first + slices :]) if s.at_mlp else []
    return fact(at, x, attention, mlp)


def rep(at: At, name: str, included: bool, u: Tensor) -> Tensor:
    if not included:
        return u
    s, channels = at.settings, u.mT
    hidden = at.own(f"{name}.a.weight")[:, :, 0] @ channels
    hidden = at.dropout(hidden + at.own(f"{name}.a.bias")[:, None] if s.biases else hidden)
    parts = zip(at.own(f"{name}.b.weight")[:, :, 0].chunk(s.groups), hidden.chunk(s.groups, dim=1), strict=True)
    added = torch.cat([weight @ part for weight, part in parts], dim=1)
    return u + s.scale * (added + at.own(f"{name}.b.bias")[:, None] if s.biases else added).mT


def repadapter(at: At, x: Tensor) -> Tensor:
    s = at.settings
    h = x + at.path(at.attention(rep(at, "repadapter_attn.{}", s.at_attention, at.norm("norm1", x))))
    return h + at.path(at.mlp(rep(at, "repadapter_mlp.{}", s.at_mlp, at.norm("norm2", h))))


def adapter(at: At, x: Tensor) -> Tensor:
    h = at.after_attention(x)
    if at.settings.form == "vpt":
        t = at.mlp(at.norm("norm2", h))
        return h + at.path(t + at.up("adapter.{}", at.down("adapter.{}", gelu, t)))
    t = at.mlp_branch(h)
    return h + t + at.up("adapter.{}", at.dropout(at.down("adapter.{}", quick_gelu, t)))


def dropped_adapter(at: At, name: str, values: Tensor) -> Tensor:
    return at.masks.path(at.up(name, at.down(name, gelu, values)), at.settings.adapter_drop_path)


def adapter_houlsby(at: At, x: Tensor) -> Tensor:
    s = at.settings
    t = at.path(at.attention(at.norm("norm1", x)))
    h = x + t + (s.scale * dropped_adapter(at, "adapter_attn.{}", t) if s.at_attention else 0)
    t = at.mlp_branch(h)
    return h + t + (s.scale * dropped_adapter(at, "adapter.{}", t) if s.at_mlp else 0)


def adapter_pfeiffer(at: At, x: Tensor) -> Tensor:
    s, h = at.settings, at.after_attention(x)
    t = at.mlp_branch(h)
    read = h + t if s.reads_residual else t
    if s.norm:
        read = layer_norm(read, at.own("adapter.{}.norm.weight"), at.own("adapter.{}.norm.bias"))
    return h + t + s.scale * dropped_adapter(at, "adapter.{}", read)


def adapter_plus(at: At, x: Tensor) -> Tensor:
    s, h = at.settings, at.after_attention(x)
    t = at.mlp_branch(h)
    scale = 1 if s.scaling == "none" else at.own("adapter.{}.scale")
    return h + t + scale * dropped_adapter(at, "adapter.{}", h + t if s.reads_residual else t)


def difffit(at: At, x: Tensor) -> Tensor:
    first, second = (at.own(f"gamma{n}.{{}}") for n in (1, 2)) if at.settings.gammas else (1, 1)
    h = x + first * at.path(at.attention(at.norm("norm1", x)))
    return h + second * at.mlp_branch(h)


BLOCKS: dict[str, Callable[[At, Tensor], Tensor]] = {
    "adapter": adapter,
    "adapter-houlsby": adapter_houlsby,
    "adapter-pfeiffer": adapter_pfeiffer,
    "adapter-plus": adapter_plus,
    "adaptformer": adaptformer,
    "bitfit": plain,
    "convpass": convpass,
    "convpass-attn": convpass,
    "difffit": difffit,
    "fact-tk": fact_tk,
    "fact-tt": fact_tt,
    "ln-tuning": plain,
    "lora": lora,
    "partial": plain,
    "repadapter": repadapter,
    "repadapter-attn": repadapter,
    "ssf": ssf,
}


def logits(
    name: str, vit: Vit, tensors: Mapping[str, Tensor], settings: Any, images: Tensor, masks: Masks, rates: list[float]
) -> Tensor:
    """The logits (B, C) of a method with the given tensors; ``rates`` are those of stochastic depth by block."""
    blocks = [At(index, vit, tensors, settings, masks, rate) for index, rate in enumerate(rates)]
    kernel = tensors["backbone.patch_embed.proj.weight"].flatten(1)
    cut = images.unfold(2, vit.patch, vit.patch).unfold(3, vit.patch, vit.patch)
    patches = cut.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2) @ kernel.T
    patches = patches + tensors["backbone.patch_embed.proj.bias"]
    if name == "ssf":
        patches = scale_shift(blocks[0], "ssf_patch_embed", settings.at_patches, patches)
    cls = tensors["backbone.cls_token"].expand(len(images), -1, -1)
    tokens = torch.cat([cls, patches], dim=1) + tensors["backbone.pos_embed"]
    for at in blocks:
        tokens = BLOCKS[name](at, tokens)
    read = layer_norm(tokens[:, 0], tensors["backbone.norm.weight"], tensors["backbone.norm.bias"])
    if name == "ssf":
        read = scale_shift(blocks[0], "ssf_norm", settings.at_norms, read)
    return read @ tensors["head.weight"].T + tensors["head.bias"]
