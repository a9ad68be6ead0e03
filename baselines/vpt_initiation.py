"""Prompts of VPT that start at CLS tokens of the frozen backbone."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from shipbench.errors import InputError
from shipbench.prompting import embed

if TYPE_CHECKING:
    from shipbench.methods import BuildContext

    from .settings import VptConfig

_SEED = 42


def initial_prompts(context: BuildContext) -> Tensor:
    """Return CLS tokens (depth, p, D) to start the prompts of every block from, in the way of ``initiation``.

    The training images are clustered into p clusters by their CLS tokens after the last block (k-means, seeded), and
    each prompt is a cluster's mean: of the tokens after the last block (``final-cls``), before the prompt's block
    (``cls-nolastl``) or after it (``cls-nofirstl``), always before the final norm. Before the first block, all images
    have the same CLS token. Raises ``InputError`` if there are fewer different images than prompts.
    """
    config: VptConfig = context.settings
    features = context.block_features("cls")
    name = ("vpt prompts", config.prompt_length, _SEED, version("scikit-learn"))
    after = context.cached(name, lambda: _cluster_means(features, config.prompt_length)).transpose(0, 1)
    if config.initiation == "final-cls":
        return after[-1:].expand_as(after)
    return after if config.initiation == "cls-nofirstl" else torch.cat([_input_cls(context, after), after[:-1]])


def _cluster_means(features: Tensor, clusters: int) -> Tensor:
    """Return the mean (clusters, blocks, D) of ``features`` (images, blocks, D) in every cluster of the last block."""
    from sklearn.cluster import KMeans

    last = features[:, -1]
    different = len(last.unique(dim=0))
    if different < clusters:
        raise InputError(
            f"prompt_length={clusters} needs as many different training images to start from, but there are "
            f"{different}; use fewer prompts or initiation=random"
        )
    labels = KMeans(n_clusters=clusters, random_state=_SEED, n_init=1).fit_predict(last.numpy())
    members = torch.nn.functional.one_hot(torch.as_tensor(labels, dtype=torch.long), clusters).to(features)
    return torch.einsum("ic,ibd->cbd", members / members.sum(dim=0), features)


@torch.no_grad()
def _input_cls(context: BuildContext, like: Tensor) -> Tensor:
    """Return the CLS token that enters the first block, for every prompt: (1, p, D)."""
    backbone = context.backbone
    blank = torch.zeros(1, 3, *backbone.patch_embed.img_size, device=backbone.cls_token.device)
    return embed(backbone, blank)[:, :1].to(like).expand(1, like.shape[1], -1)
