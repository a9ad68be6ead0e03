"""The licence of a backbone's weights, as far as timm or the demo suite names it."""

from __future__ import annotations

from dataclasses import dataclass

from shipbench.backbones.pinned import DEMO_BACKBONE


@dataclass(frozen=True)
class Licence:
    """The licence and the origin of weights, where a source names them.

    ``identifier`` is the hub's name of the licence, ``base_model`` the hub's repository of the weights; both are empty
    if unknown. ``sentence`` says the same to a reader.
    """

    identifier: str
    base_model: str
    sentence: str


def licence_of(backbone: str, checkpoint: str) -> Licence:
    """Return the licence of the weights of ``backbone``, or of ``checkpoint``: a file, ``random``, or empty."""
    if checkpoint == "random":
        return Licence("", "", "The backbone is a random initialisation, so only the trained part has an author.")
    if checkpoint:
        return Licence(
            "", "", f"The backbone's weights are those of the file `{checkpoint}`, whose licence is not recorded."
        )
    if backbone == DEMO_BACKBONE:
        from shipbench.backbones.demo import ONNX_FILE

        return Licence("", "", f"The backbone is the {ONNX_FILE.credit}. Licences: {ONNX_FILE.licence}.")
    return _of_timm(backbone)


def _of_timm(backbone: str) -> Licence:
    import timm

    config = timm.get_pretrained_cfg(backbone)
    if config is None or not config.license:
        return Licence("", "", f"timm names no licence for the weights of `{backbone}`.")
    base = str(config.hf_hub_id or "").removesuffix("/")
    return Licence(config.license, base, f"The weights of the backbone `{backbone}` have the licence {config.license}.")
