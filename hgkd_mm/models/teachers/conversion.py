"""Names of official MAE and BEiT weights in mmpretrain's naming."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

# Names in facebookresearch/mae (models_mae.py) and microsoft/unilm (beit, beit2), which both
# follow timm, and what mmpretrain calls the same weights. Applied in this order.
_OFFICIAL = (
    (r'^patch_embed\.proj\.', r'patch_embed.projection.'),
    (r'^((?:decoder_)?blocks\.\d+)\.norm([12])\.', r'\1.ln\2.'),
    (r'^((?:decoder_)?blocks\.\d+)\.mlp\.fc1\.', r'\1.ffn.layers.0.0.'),
    (r'^((?:decoder_)?blocks\.\d+)\.mlp\.fc2\.', r'\1.ffn.layers.1.'),
    (r'^blocks\.', r'layers.'),
    (r'^(?:decoder_)?norm\.', r'ln1.'),
)
# What MoCo v3 trains beside the encoder, in mmpretrain's files and mmselfsup's.
_MOCO_V3 = ('base_encoder.', 'momentum_encoder.', 'head.predictor.')


@dataclass
class TeacherWeights:
    """Weights of a masked-image-modeling transformer in mmpretrain's naming.

    Attributes:
        official: True if the file had official names, False if it had mmpretrain's.
        encoder: for ``VisionTransformer`` or ``BEiTPretrainViT``.
        decoder: for ``MAEPretrainDecoder``; empty where the file has none.
        unused: names of the file that belong to neither (heads, tokenizers, optimizers).
    """

    official: bool
    encoder: dict[str, Tensor] = field(default_factory=dict)
    decoder: dict[str, Tensor] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)

    @property
    def by_moco_v3(self) -> bool:
        """True if the file's other parts are those of MoCo v3; False if they don't tell."""
        return any(name.startswith(_MOCO_V3) for name in self.unused)


def to_mmpretrain(weights: Mapping[str, Tensor], *, family: str, source: str) -> TeacherWeights:
    """Sorts a checkpoint's tensors into encoder and decoder, in mmpretrain's naming.

    Args:
        weights: name to tensor of mmpretrain's files (``backbone.``, ``neck.``), a bare mmpretrain
            backbone (``layers.``), or the official ones (``blocks.``, ``decoder_blocks.``).
        family: 'mae', 'beit', 'beitv2' or 'vit'.
        source: where they come from: for messages.

    Raises:
        ValueError: the names are of none of these layouts.
    """
    parts = {name.split('.')[0] for name in weights}
    if 'backbone' in parts:
        return _from_mmpretrain(weights, family)
    if 'layers' in parts:
        return TeacherWeights(official=False, encoder=dict(weights))
    if 'blocks' in parts:
        return _from_official(weights, family)
    raise ValueError(
        f'{source} is not a vision transformer that is known here: expected names that start '
        f'with backbone., layers. or blocks.; found {", ".join(list(weights)[:5])}. Give '
        'mmpretrain or official MAE or BEiT weights (config key checkpoint).'
    )


def _from_mmpretrain(weights: Mapping[str, Tensor], family: str) -> TeacherWeights:
    found = TeacherWeights(official=False)
    for name, value in weights.items():
        part, _, rest = name.partition('.')
        if part == 'backbone':
            found.encoder[rest] = value
        elif part == 'neck' and family == 'mae':
            found.decoder[rest] = value
        elif family == 'beitv2' and name in ('neck.norm.weight', 'neck.norm.bias'):
            # BEiT v2 normalizes the encoder's last tokens in its neck (BEiTV2Neck).
            found.encoder[f'ln1.{rest.removeprefix("norm.")}'] = value
        else:
            found.unused.append(name)
    return found


def _from_official(weights: Mapping[str, Tensor], family: str) -> TeacherWeights:
    found = TeacherWeights(official=True)
    for name, value in weights.items():
        new = name
        for pattern, replacement in _OFFICIAL:
            new = re.sub(pattern, replacement, new)
        of_decoder = family == 'mae' and (name == 'mask_token' or name.startswith('decoder_'))
        (found.decoder if of_decoder else found.encoder)[new] = value
    return found
