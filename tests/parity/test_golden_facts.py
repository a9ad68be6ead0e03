"""Golden facts besides the forward pass: hierarchy, bank, counts, schedules, initial values, Google's weights."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import sklearn
import timm
import torch
from shipbench_baselines.settings import VptConfig
from shipbench_baselines.vpt import Vpt
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from shipbench.methods.ship import (
    Ship,
    ShipConfig,
    affinity_matrix,
    attribute_prototypes,
    build_hierarchy,
)
from shipbench.methods.ship.attributes import cluster_means, guide
from shipbench.methods.ship.hierarchy import affinity_deviation
from shipbench.prompting import drop_rates, sample_drop_factors
from shipbench.training.schedule import learning_rates
from tests.parity import golden

FROZEN_VIT_B16 = 85_798_656


def arrays(name: str) -> dict[str, Tensor]:
    with np.load(golden.golden_file(f"{name}.npz")) as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored.files}


def published(task: str) -> dict[str, Any]:
    name = {"oxford_pet": "oxford_iiit_pet"}.get(task, task)
    (result,) = [result for result in golden.published_results() if result["task"] == name]
    return result


def test_levels_of_all_published_tasks() -> None:
    matrices = arrays("affinity")
    computed = {task: build_hierarchy(m, published(task)["threshold"]) for task, m in matrices.items()}
    assert len(computed) == 19
    assert computed == {task: published(task)["levels"] for task in matrices}


def test_parameter_counts_of_all_published_tasks() -> None:
    results = golden.published_results()
    assert len(results) == 19
    with torch.device("meta"):
        vit = wide_vit(12, 64)
    for result in results:
        classes, config = result["num_classes"], ShipConfig(prompt_length=result["prompt_length"])
        model = Ship(vit, classes, result["levels"], torch.zeros(classes, 768), config)
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert count == result["trainable_parameters_used"], result["task"]
        unused = result["prompt_length"] * 768
        frozen = FROZEN_VIT_B16 if result["frozen_backbone_counted"] else 0
        assert count + unused + frozen == result["published_parameter_count"], result["task"]


@pytest.mark.parametrize("dataset", ["a", "b"])
def test_levels_of_synthetic_features(dataset: str) -> None:
    affinity = arrays("hierarchy_synthetic")[f"{dataset}.affinity"]
    by_threshold = golden.header("hierarchy_synthetic")[dataset]["groups_by_threshold"]
    assert {t: build_hierarchy(affinity, float(t)) for t in by_threshold} == by_threshold
    assert build_hierarchy(affinity, 1.0) == list(range(12))
    assert build_hierarchy(affinity, 0.99, end_layer=6) == [i for i in by_threshold["0.99"] if i < 6]


def test_affinity_of_synthetic_features() -> None:
    stored = arrays("hierarchy_synthetic")
    affinity = affinity_matrix(stored["a.features"].transpose(0, 1))
    assert torch.allclose(affinity, stored["a.affinity"], rtol=0, atol=2e-6)


def test_the_deviation_of_the_affinity_is_that_of_the_cosines_of_single_images() -> None:
    features = arrays("hierarchy_synthetic")["a.features"].transpose(0, 1)[:5]
    singly = torch.stack([affinity_matrix(image[None]) for image in features])
    assert torch.allclose(affinity_deviation(features), singly.std(dim=0), rtol=0, atol=1e-6)


def clustered_features(dataset: str) -> Tensor:
    stored = arrays("hierarchy_synthetic")
    if dataset == "a":
        return stored["a.features"][-1]
    return stored["b.last_layer_features"][stored["b.subset_indices"]]


@pytest.mark.parametrize("dataset", ["a", "b"])
def test_prototypes_are_the_means_of_the_stored_clusters(dataset: str) -> None:
    stored = arrays("hierarchy_synthetic")
    means = cluster_means(clustered_features(dataset), stored[f"{dataset}.kmeans_labels"].long())
    assert torch.allclose(means, stored[f"{dataset}.prototypes"], rtol=0, atol=2e-6)


@pytest.mark.parametrize("dataset", ["a", "b"])
def test_prototypes_of_synthetic_features(dataset: str) -> None:
    features = clustered_features(dataset)
    prototypes = attribute_prototypes(features, 200)
    assert prototypes.shape == (200, 48)
    members = torch.cdist(features, prototypes).argmin(dim=1)
    assert torch.allclose(cluster_means(features, members), prototypes, rtol=0, atol=1e-4)
    if sklearn.__version__ == golden.header("hierarchy_synthetic")["sklearn"]:
        stored = arrays("hierarchy_synthetic")[f"{dataset}.prototypes"]
        assert torch.allclose(prototypes, stored, rtol=0, atol=1e-4)


@pytest.mark.parametrize("task", ["cifar100", "clevr_count"])
def test_guide_with_the_authors_banks(task: str) -> None:
    """The softmax is nearly flat: the guided part is close to the bank's mean, and 20 times as long as the learned."""
    bank = arrays("prototypes_f16")[task].double()
    described = golden.header("prototypes_summary")["tasks"][task]
    assert bank.norm(dim=1).mean().item() == pytest.approx(described["row_norm_mean"], rel=1e-3)
    guided = guide(bank[None], bank)[0]
    facts = golden.header("ship_behaviour")["bank_share_of_attribute_prompt"][task]
    length = 0.1 * guided.norm(dim=1).mean().item()
    assert length == pytest.approx(facts["norm_0p1_pattern"], rel=1e-3)
    assert length > 20 * facts["norm_0p9_attribute_at_init"]
    direction = torch.cosine_similarity(guided, bank.mean(0, keepdim=True)).mean().item()
    assert direction == pytest.approx(facts["cos_pattern_bank_mean"], abs=1e-4)


@pytest.mark.parametrize("lr", ["0.001", "0.05", "1.0"])
def test_ship_learning_rates(lr: str) -> None:
    stored = golden.header("official_recipe")["ship"]["lr_schedule"]["lr_used_in_epoch"][lr]
    assert learning_rates("ship", float(lr), 100) == pytest.approx(stored, rel=1e-12, abs=0)


def test_vpt_learning_rates() -> None:
    stored = golden.header("vpt_counts_and_schedule")["lr_used_in_epoch_base0p25"]
    assert learning_rates("vpt", 0.25, 100) == pytest.approx(stored, rel=1e-9, abs=1e-15)


def test_stochastic_depth_draws_the_official_masks() -> None:
    """Equal seeds give equal masks: block by block, attention before MLP, without draws for a rate of 0."""
    described = golden.header("ship_tiny")["droppath"]
    vit = VisionTransformer(32, 16, embed_dim=8, num_heads=1, depth=12, drop_path_rate=described["rate"])
    assert drop_rates(vit) == pytest.approx(described["per_block"], abs=1e-7)
    torch.manual_seed(described["torch_manual_seed"])
    factors = sample_drop_factors(described["per_block"], 3)
    assert factors is not None
    assert torch.equal(factors, golden.tensors("ship_tiny")["droppath.factors_block_branch_sample"])


def test_official_stochastic_depth_rates() -> None:
    vit = VisionTransformer(32, 16, embed_dim=8, num_heads=1, depth=12, drop_path_rate=0.1)
    stored = golden.header("ship_behaviour")["drop_path_prob_per_block"]
    assert drop_rates(vit) == pytest.approx(stored, abs=1e-7)


def wide_vit(depth: int, image_size: int = 32) -> VisionTransformer:
    """A backbone as wide as ViT-B/16; initial values depend on nothing else."""
    return VisionTransformer(image_size, 16, num_classes=0, embed_dim=768, depth=depth, num_heads=12, mlp_ratio=0.1)


def assert_uniform(values: Tensor, bound: float) -> None:
    assert values.abs().max().item() <= bound
    assert values.abs().max().item() > 0.99 * bound
    assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize("length", [5, 50])
def test_ship_initial_values(length: int) -> None:
    stored = golden.header("ship_behaviour")["initialisation"][f"K{length}"]
    config = ShipConfig(prompt_length=length, attribute_length=4)
    torch.manual_seed(0)
    model = Ship(wide_vit(4), 100, [0, 1, 3], torch.zeros(5, 768), config)
    for prompts in model.prompts.independent:
        assert_uniform(prompts, stored["formula"]["independent"])
    assert_uniform(model.prompts.shared, stored["formula"]["shared"])
    assert_uniform(model.prompts.attribute, stored["formula"]["attribute"] * math.sqrt(10 / 4))
    assert model.head.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not model.head.bias.any()


@pytest.mark.parametrize(("project", "bound"), [(0, 0.0625), (256, math.sqrt(6 / (3 * 16 * 16 + 256)))])
@pytest.mark.parametrize("deep", [False, True])
def test_vpt_initial_values(project: int, bound: float, deep: bool) -> None:
    torch.manual_seed(0)
    model = Vpt(wide_vit(2), 100, VptConfig(prompt_length=50, project=project), deep=deep)
    assert_uniform(model.prompts.tokens, bound)
    kind = f"vpt_{'deep' if deep else 'shallow'}_p50" + ("_project256" if project else "")
    stored = golden.header("vpt_counts_and_schedule")["vit_b16_100_classes"][kind]["prompt_init"]
    assert stored["enc.transformer.prompt_embeddings"]["absmax"] <= bound


def test_vpt_counts_for_vit_b16() -> None:
    stored = golden.header("vpt_counts_and_schedule")["vit_b16_100_classes"]
    for deep, project in itertools.product([False, True], [0, 256]):
        model = Vpt(wide_vit(2), 100, VptConfig(prompt_length=50, project=project), deep=deep)
        per_block = model.prompts.tokens[0].numel()
        count = sum(p.numel() for p in model.parameters() if p.requires_grad) + (10 * per_block if deep else 0)
        kind = f"vpt_{'deep' if deep else 'shallow'}_p50" + ("_project256" if project else "")
        assert count == stored[kind]["trainable"], kind


def test_google_checkpoint_gives_the_expected_outputs() -> None:
    """timm's reader of Google's naming, which ``load_backbone`` uses, agrees with the official loaders."""
    vit = timm.create_model("vit_base_patch16_224", embed_dim=48, depth=12, num_heads=4, num_classes=9).eval()
    vit.load_pretrained(str(golden.golden_file("google_npz_tiny.npz")))
    expected = arrays("google_npz_tiny_expected")
    with torch.no_grad():
        features = vit.forward_features(golden.tensors("ship_tiny")["images"].float())
    assert torch.allclose(features[:, 0], expected["final_norm_cls"], rtol=0, atol=2e-5)
    assert torch.allclose(vit.forward_head(features), expected["logits"], rtol=0, atol=2e-5)
