"""The licence of a backbone's weights, as far as timm or the demo suite names it."""

from __future__ import annotations

from dataclasses import dataclass

from shipbench.backbones.pinned import DEMO_BACKBONE, RANDOM

# Of the names that timm gives to licences, those that the hub has too.
_ON_THE_HUB = (
    "apache-2.0",
    "apple-amlr",
    "apple-ascl",
    "bsd-3-clause",
    "cc-by-4.0",
    "cc-by-nc-4.0",
    "fair-noncommercial-research-license",
    "gemma",
    "mit",
)


@dataclass(frozen=True)
class Licence:
    """The licences and the origin of weights, where a source names them.

    ``names`` are the licences that apply together, ``base_model`` the hub's repository of the weights; both are empty
    if unknown. ``sentence`` says the same to a reader.
    """

    names: tuple[str, ...]
    base_model: str
    sentence: str

    @property
    def metadata(self) -> dict[str, str | list[str]]:
        """The licence in the header of a card on the hub, which refuses names that it does not have."""
        match self.names:
            case ():
                return {}
            case (name,):
                return {"license": name} if name in _ON_THE_HUB else {"license": "other", "license_name": name}
            case names:
                return {"license": list(names)}


def licence_of(backbone: str, checkpoint: str) -> Licence:
    """Return the licence of the weights of ``backbone``, or of ``checkpoint``: a file, ``random``, or empty."""
    if checkpoint == RANDOM:
        return Licence((), "", "The backbone is a random initialisation, so only the trained part has an author.")
    if checkpoint:
        return Licence(
            (), "", f"The backbone's weights are those of the file `{checkpoint}`, whose licence is not recorded."
        )
    if backbone == DEMO_BACKBONE:
        from shipbench.backbones.demo import ONNX_FILE

        sentence = f"The backbone is the {ONNX_FILE.credit}. Licences: {ONNX_FILE.licence}."
        return Licence(("mit", "apache-2.0"), "", sentence)
    return _of_timm(backbone)


def _of_timm(backbone: str) -> Licence:
    import timm

    config = timm.get_pretrained_cfg(backbone)
    if config is None or config.license in (None, "", "unknown"):
        return Licence((), "", f"timm names no licence for the weights of `{backbone}`.")
    base = str(config.hf_hub_id or "").removesuffix("/")
    sentence = f"The weights of the backbone `{backbone}` have the licence {config.license}."
    return Licence((config.license,), base, sentence)
