"""The attribute bank, and how it guides attribute prompts (section 3 of the paper)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BANK_IMAGES = 1000
BANK_SEED = 42


def attribute_prototypes(features: Tensor, clusters: int = 200, seed: int = BANK_SEED) -> Tensor:
    """Return the bank (clusters, D): the mean feature of every k-means cluster, float32.

    ``features`` (images, D) are last-block features of the training images; of more than 1000, a seeded choice of
    1000 is used. Fewer images than clusters give fewer clusters.
    """
    from sklearn.cluster import KMeans

    points = torch.as_tensor(features, dtype=torch.float32).cpu()
    if len(points) > BANK_IMAGES:
        chosen = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:BANK_IMAGES]
        points = points[chosen]
    labels = KMeans(n_clusters=min(clusters, len(points)), random_state=seed, n_init=1).fit_predict(points.numpy())
    return cluster_means(points, torch.as_tensor(labels, dtype=torch.long))


def cluster_means(points: Tensor, labels: Tensor) -> Tensor:
    """Return the mean (clusters, D) of the ``points`` (n, D) with each label; labels without a point are left out."""
    present, labels = labels.unique(return_inverse=True)
    sums = points.new_zeros(len(present), points.shape[1]).index_add_(0, labels, points)
    return sums / labels.bincount(minlength=len(present)).unsqueeze(1)


def guide(tokens: Tensor, bank: Tensor, temperature: float = 1.0) -> Tensor:
    """Return guided tokens (B, k, D): each a softmax mixture of the bank (C, D), by cosine to the token (B, k, D)."""
    cosine = F.normalize(tokens, dim=-1) @ F.normalize(bank, dim=-1).T
    return (cosine / temperature).softmax(dim=-1) @ bank
