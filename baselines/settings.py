"""The settings of the baselines, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Interval

from shipbench.errors import InputError
from shipbench.settings import Settings

_PIXEL_LOCATIONS = ("prepend-pixel", "below", "pad")
_PROMPT_POOLS = ("prompt_pool", "imgprompt_pool")
CLS_INITIATIONS = ("final-cls", "cls-nolastl", "cls-nofirstl")
PAD_WITHOUT_EMBEDDINGS = "location=pad adds patches, for which rotary positions have no place; use prepend"


@dataclass(frozen=True)
class VptConfig(Settings):
    """Settings of VPT (Jia et al., ECCV 2022); their values are those of the official configuration.

    There are ``prompt_length`` prompts (p) of width ``project``, which one shared linear layer projects to the
    backbone's width; at ``project`` 0, prompts have the backbone's width and there is no projection. ``dropout`` is
    the dropout rate of the (projected) prompts in training.

    ``location`` is where the prompts are: p tokens beside the image tokens (``prepend``), one prompt added to each
    token (``add``) or the same to all (``add-1``), p tokens that the frozen patch embedding makes of p trained patches
    (``prepend-pixel``), p further image channels with a trained patch embedding (``below``), or a frame of p pixels
    (``pad``). ``pooling`` is what the head reads: CLS (``original``), or the mean of the patch tokens (``img_pool``),
    of the prompt tokens (``prompt_pool``), or of all tokens but CLS (``imgprompt_pool``). ``initiation`` is where
    prompts start: at random, or, as p clusters of the training images, at the frozen backbone's CLS tokens after the
    last block (``final-cls``), before the prompts' block (``cls-nolastl``) or after it (``cls-nofirstl``);
    ``gaussian`` and ``imgnettransform`` are other random starts of ``prepend-pixel``.
    """

    prompt_length: Annotated[int, Ge(1)] = 10
    project: Annotated[int, Ge(0)] = 0
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    location: Literal["prepend", "add", "add-1", "prepend-pixel", "below", "pad"] = "prepend"
    pooling: Literal["original", "img_pool", "prompt_pool", "imgprompt_pool"] = "original"
    initiation: Literal["random", "gaussian", "imgnettransform", "final-cls", "cls-nolastl", "cls-nofirstl"] = "random"

    def __post_init__(self) -> None:
        """Convert and check every field, and refuse options that cannot be combined."""
        super().__post_init__()
        if self.location in _PIXEL_LOCATIONS and (self.project or self.dropout):
            raise InputError(f"location={self.location} has neither project nor dropout; set both to 0")
        if self.pooling in _PROMPT_POOLS and self.location not in ("prepend", "prepend-pixel"):
            raise InputError(
                f"pooling={self.pooling} reads prompt tokens, and location={self.location} has none; "
                "use pooling=original or img_pool"
            )
        if self.initiation in ("gaussian", "imgnettransform") and self.location != "prepend-pixel":
            raise InputError(f"initiation={self.initiation} is for location=prepend-pixel; use initiation=random")
        if self.initiation in CLS_INITIATIONS and (self.location != "prepend" or self.project):
            raise InputError(
                f"initiation={self.initiation} starts prompts of the backbone's width among the tokens; "
                "use it with location=prepend and project=0"
            )


@dataclass(frozen=True)
class VptDeepConfig(VptConfig):
    """Settings of VPT-deep: those of VPT without its shallow locations, and which blocks have prompts.

    The first ``deep_layers`` blocks have prompts of their own, by default all. ``deep_order`` says what follows: the
    prompts' outputs stay among the tokens (``forward``) or are removed (``forward-noexpand``); with ``reverse``, the
    last ``deep_layers`` blocks have prompts, and the blocks before none. With ``deep_shared``, all of these blocks get
    the same prompts.
    """

    location: Literal["prepend", "add", "add-1"] = "prepend"
    deep_layers: Annotated[int, Ge(1)] | None = None
    deep_order: Literal["forward", "forward-noexpand", "reverse"] = "forward"
    deep_shared: bool = False

    def __post_init__(self) -> None:
        """Convert and check every field, and refuse options that cannot be combined."""
        super().__post_init__()
        if self.deep_order == "forward-noexpand" and (self.location != "prepend" or self.pooling in _PROMPT_POOLS):
            raise InputError(
                "deep_order=forward-noexpand removes prompt tokens; use it with location=prepend and without "
                "pooling=prompt_pool or imgprompt_pool"
            )

    def too_deep(self, blocks: int) -> str:
        """Return why a backbone of ``blocks`` blocks is too shallow for ``deep_layers``, or an empty string."""
        if self.deep_layers is None or self.deep_layers <= blocks:
            return ""
        return f"deep_layers is {self.deep_layers}, but the backbone has {blocks} blocks; use {blocks} or fewer"


@dataclass(frozen=True)
class LoraConfig(Settings):
    """Settings of LoRA.

    ``form`` names the code whose LoRA this is. ``noah``: one pair of rank ``rank`` for the fused q, k, v, times
    ``scale``; ``peft``: the same pair, times ``alpha`` / ``rank``; ``qv``: a pair for q and one for v, times ``scale``.
    ``alpha`` is for the form ``peft`` alone, and ``scale`` for the others.
    ``init`` ``zero_b`` starts at the pretrained function; ``noah`` draws both matrices from a truncated normal of
    deviation 0.02, as the published NOAH runs do, and does not. ``dropout`` acts on the input of a pair, in the form
    ``qv`` on its hidden units. Without ``at_query``, ``at_key`` or ``at_value``, that projection does not change; the
    form ``qv`` never changes keys.
    """

    form: Literal["noah", "peft", "qv"] = "noah"
    rank: Annotated[int, Ge(1)] = 8
    scale: float = 1.0
    alpha: float = 8.0
    init: Literal["zero_b", "noah"] = "zero_b"
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    at_query: bool = True
    at_key: bool = True
    at_value: bool = True

    def __post_init__(self) -> None:
        """Convert and check every field, and refuse values that change nothing in the form."""
        super().__post_init__()
        if self.form == "qv" and not self.at_key:
            raise InputError("at_key=false changes nothing with form=qv, which has no pair for the keys; use form=noah")
        if self.form == "peft" and self.scale != LoraConfig.scale:
            raise InputError("scale changes nothing with form=peft, whose factor is alpha / rank; set alpha")
        if self.form != "peft" and self.alpha != LoraConfig.alpha:
            raise InputError(f"alpha changes nothing with form={self.form}, whose factor is scale; set scale")

    @property
    def factor(self) -> float:
        """The factor of the low-rank product."""
        return self.alpha / self.rank if self.form == "peft" else self.scale


@dataclass(frozen=True)
class AdaptFormerConfig(Settings):
    """Settings of AdaptFormer: ``dim`` hidden units, and the ``scale`` of the adapter's branch.

    With ``learned_scale``, one trained scalar that starts at 1 takes the place of ``scale``. ``dropout`` acts on the
    hidden units. ``placement`` is ``parallel`` to the MLP, or ``serial``: the adapter reads the MLP's output. Without
    ``activation``, the adapter is linear.
    """

    dim: Annotated[int, Ge(1)] = 8
    scale: float = 0.1
    learned_scale: bool = False
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    placement: Literal["parallel", "serial"] = "parallel"
    activation: bool = True

    def __post_init__(self) -> None:
        """Convert and check every field, and refuse a fixed scale beside a learned one."""
        super().__post_init__()
        if self.learned_scale and self.scale != AdaptFormerConfig.scale:
            raise InputError("scale changes nothing with learned_scale=true, whose scalar starts at 1; leave it out")


@dataclass(frozen=True)
class SsfConfig(Settings):
    """Settings of SSF: ``init`` ``normal``, as published, starts away from the pretrained function; ``identity`` at it.

    ``normal`` draws scales and shifts with deviation 0.02 around 1 and 0. Without ``scales`` or ``shifts``, only the
    other is trained. SSF acts after the patch projection (``at_patches``), the norms (``at_norms``), qkv and proj
    (``at_attention``), and the linear layers of the MLP (``at_mlp``).
    """

    init: Literal["normal", "identity"] = "normal"
    scales: bool = True
    shifts: bool = True
    at_patches: bool = True
    at_norms: bool = True
    at_attention: bool = True
    at_mlp: bool = True

    def why_unusable(self, mlp: str) -> str:
        """Return why SSF cannot act after the layers of an MLP of class ``mlp``, or an empty string."""
        if mlp in ("Mlp", "GluMlp", "SwiGLU"):
            return ""
        return f"its MLP is {mlp}, but SSF acts after the layers of Mlp, GluMlp and SwiGLU alone"


@dataclass(frozen=True)
class ConvpassConfig(Settings):
    """Settings of Convpass: ``dim`` channels in the bypass, its ``scale``, and how its convolution starts.

    ``conv_init`` ``identity`` is a centre tap that passes every channel on. ``dropout`` acts on the channels. There are
    bypasses of the attention (``at_attention``) and of the MLP (``at_mlp``). Without ``convolution``, a bypass is
    up(Q(down(u))), a bottleneck for each token; without ``activation``, it has no Q.
    """

    dim: Annotated[int, Ge(1)] = 8
    scale: float = 1.0
    conv_init: Literal["xavier", "identity"] = "xavier"
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    at_attention: bool = True
    at_mlp: bool = True
    convolution: bool = True
    activation: bool = True


@dataclass(frozen=True)
class ConvpassAttentionConfig(ConvpassConfig):
    """Settings of Convpass-attn, as those of Convpass; by default, it has no bypass of the MLP."""

    at_mlp: bool = False


@dataclass(frozen=True)
class FactTtConfig(Settings):
    """Settings of FacT-TT: the ``rank`` of the shared factors and the ``scale`` of all changes of weights.

    ``dropout`` acts on the values between core and shared factor. The weights of qkv and proj (``at_attention``) and
    those of fc1 and fc2 (``at_mlp``) change. Without ``shared_factors``, every block has factors u and v to itself.
    """

    rank: Annotated[int, Ge(1)] = 16
    scale: float = 1.0
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    at_attention: bool = True
    at_mlp: bool = True
    shared_factors: bool = True

    def why_unusable(self, mlp: str) -> str:
        """Return why the weights of an MLP of class ``mlp`` cannot change, or an empty string."""
        if not self.at_mlp or mlp == "Mlp":
            return ""
        return f"its MLP is {mlp}, but FacT is defined for the weights of a plain one"


@dataclass(frozen=True)
class FactTkConfig(FactTtConfig):
    """Settings of FacT-TK, as those of FacT-TT; its released ranks are larger."""

    rank: Annotated[int, Ge(1)] = 32


@dataclass(frozen=True)
class RepAdapterConfig(Settings):
    """Settings of RepAdapter: ``dim`` hidden units, and the ``scale`` of the adapter.

    ``dropout`` acts on the hidden units. There are adapters in front of the attention (``at_attention``) and of the MLP
    (``at_mlp``). The layer from the hidden units back is divided into ``groups``, which divide ``dim``; 1 is a dense
    layer. Without ``biases``, both layers of an adapter have weights alone.
    """

    dim: Annotated[int, Ge(1)] = 8
    scale: float = 1.0
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    at_attention: bool = True
    at_mlp: bool = True
    groups: Annotated[int, Ge(1)] = 2
    biases: bool = True

    def __post_init__(self) -> None:
        """Convert and check every field, and refuse hidden units that do not divide into groups."""
        super().__post_init__()
        if self.dim % self.groups:
            raise InputError(f"dim is {self.dim}; it must be a multiple of groups, which is {self.groups}")


@dataclass(frozen=True)
class RepAdapterAttentionConfig(RepAdapterConfig):
    """Settings of RepAdapter-attn, as those of RepAdapter; by default, it has no adapter in front of the MLP."""

    at_mlp: bool = False


@dataclass(frozen=True)
class SerialConfig(Settings):
    """Settings of the adapter after the MLP.

    There are ``dim`` hidden units. ``form`` ``noah`` has the activation t sigmoid(1.702 t) and keeps the adapter's
    branch when stochastic depth drops the MLP; ``vpt`` has exact GELU and drops both. ``init`` ``noah`` draws weights
    from a truncated normal of deviation 0.02; ``zero_up`` starts at the pretrained function; ``zero``, as in VPT's
    code, sets all weights to zero, and from there only the last bias ever moves. ``dropout`` acts on the hidden units
    of the form ``noah``. Without ``activation``, the adapter is linear.
    """

    dim: Annotated[int, Ge(1)] = 8
    form: Literal["noah", "vpt"] = "noah"
    init: Literal["noah", "zero_up", "zero"] = "noah"
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    activation: bool = True

    def __post_init__(self) -> None:
        """Convert and check every field, and refuse a rate of dropout in the form without any."""
        super().__post_init__()
        if self.form == "vpt" and self.dropout not in (0, SerialConfig.dropout):
            raise InputError("dropout changes nothing with form=vpt, which has none; leave it out")


@dataclass(frozen=True)
class HoulsbyConfig(Settings):
    """Settings of the Houlsby adapters: ``dim`` hidden units, the ``scale`` of the branch, the backbone's norms.

    ``adapter_drop_path`` is the rate at which an adapter is dropped for an image, the same in every block. There are
    adapters after the attention (``at_attention``) and after the MLP (``at_mlp``); without ``activation``, they are
    linear.
    """

    dim: Annotated[int, Ge(1)] = 8
    scale: float = 1.0
    train_norms: bool = True
    adapter_drop_path: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    at_attention: bool = True
    at_mlp: bool = True
    activation: bool = True


@dataclass(frozen=True)
class PfeifferConfig(Settings):
    """Settings of the Pfeiffer adapter: ``dim`` hidden units and the ``scale`` of the branch.

    ``adapter_drop_path`` is the rate at which an adapter is dropped for an image, the same in every block. Without
    ``reads_residual``, the adapter reads the MLP's output t in place of h + t; without ``norm``, it has no LN_a;
    without ``activation``, no GELU.
    """

    dim: Annotated[int, Ge(1)] = 8
    scale: float = 1.0
    adapter_drop_path: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    reads_residual: bool = True
    norm: bool = True
    activation: bool = True


@dataclass(frozen=True)
class AdapterPlusConfig(Settings):
    """Settings of Adapter+: ``dim`` hidden units.

    ``adapter_drop_path`` is the rate at which an adapter is dropped for an image, the same in every block. ``scaling``
    trains one scale for each ``channel``, one for each ``layer``, or ``none``. Without ``reads_residual``, the adapter
    reads the MLP's output t in place of h + t; without ``activation``, it is linear.
    """

    dim: Annotated[int, Ge(1)] = 8
    adapter_drop_path: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    scaling: Literal["channel", "layer", "none"] = "channel"
    reads_residual: bool = True
    activation: bool = True


@dataclass(frozen=True)
class BitFitConfig(Settings):
    """Settings of BitFit: the biases of the patch projection, the norms, qkv and proj, and the MLP are trained."""

    at_patches: bool = True
    at_norms: bool = True
    at_attention: bool = True
    at_mlp: bool = True


@dataclass(frozen=True)
class LnTuningConfig(Settings):
    """Settings of LN tuning: ``weights`` and ``biases`` of the norms are trained, those of the ``final_norm`` too."""

    weights: bool = True
    biases: bool = True
    final_norm: bool = True


@dataclass(frozen=True)
class DiffFitConfig(Settings):
    """Settings of DiffFit: the scales of the branches (``gammas``), the ``norms`` and all ``biases`` are trained.

    A norm's bias is trained with ``norms`` or with ``biases``.
    """

    gammas: bool = True
    norms: bool = True
    biases: bool = True


@dataclass(frozen=True)
class PartialConfig(Settings):
    """Settings of partial fine-tuning: the last ``blocks`` blocks are trained, and the ``final_norm``."""

    blocks: Annotated[int, Ge(1)] = 1
    final_norm: bool = True

    def too_many(self, blocks: int) -> str:
        """Return why a backbone of ``blocks`` blocks has too few to train, or an empty string."""
        if self.blocks <= blocks:
            return ""
        return f"blocks is {self.blocks}, but the backbone has {blocks} blocks; use {blocks} or fewer"
