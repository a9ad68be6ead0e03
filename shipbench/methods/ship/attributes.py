"""The attribute bank, and the guidance of attribute prompts by it."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from shipbench.methods.ship.features import finite_features
from shipbench.prompting.full_precision import at_least_float32, full_precision
from shipbench.prompting.short_gradients import unit
from shipbench.settings import whole_number

BANK_IMAGES = 1000
BANK_SEED = 42


def attribute_prototypes(features: Tensor, clusters: int = 200, seed: int = BANK_SEED) -> Tensor:
    """Return the attribute bank (clusters, D), float32: the mean feature of every k-means cluster.

    ``features`` (images, D) are last-block features of the training images; a seeded sample of 1000 is used if there
    are more. There are at most as many clusters as different features. Raises ``InputError`` for another shape, for
    no images, for numbers that are not finite, and for fewer than one cluster.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    clusters, seed = whole_number("clusters", clusters, 1), whole_number("seed", seed, 0)
    points = finite_features(features, "(images, D)").to("cpu", torch.float32)
    if len(points) > BANK_IMAGES:
        chosen = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:BANK_IMAGES]
        points = points[chosen]
    with warnings.catch_warnings():
        # Equal features leave clusters empty, of which the bank's size tells.
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = KMeans(n_clusters=min(clusters, len(points)), random_state=seed, n_init=1).fit_predict(points.numpy())
    return cluster_means(points, torch.as_tensor(labels, dtype=torch.long))


def cluster_means(points: Tensor, labels: Tensor) -> Tensor:
    """Return the mean (clusters, D) of the ``points`` (n, D) of each label in ``labels`` (n,), by ascending label."""
    present, labels = labels.unique(return_inverse=True)
    sums = points.new_zeros(len(present), points.shape[1]).index_add_(0, labels, points)
    return sums / labels.bincount(minlength=len(present)).unsqueeze(1)


def guide(tokens: Tensor, bank: Tensor, temperature: float = 1.0) -> Tensor:
    """Return guided tokens (B, k, D): softmax(cos(tokens, bank) / temperature) @ bank.

    ``tokens`` is (B, k, D) and ``bank`` (C, D); each guided token is a mixture of the prototypes. It is computed in
    float32 or better: the mixture is close to the bank's mean, and bf16 would round away part of what depends on the
    image.
    """
    tokens, bank = at_least_float32(tokens), at_least_float32(bank)
    with full_precision(tokens.device):
        cosine = unit(tokens) @ unit(bank).T
        return (cosine if temperature == 1 else cosine / temperature).softmax(dim=-1) @ bank
