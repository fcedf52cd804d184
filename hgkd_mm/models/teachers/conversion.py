"""Names of official MAE and BEiT weights in mmpretrain's naming."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

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
_SHARED_BIAS = 'rel_pos_bias.relative_position_bias_table'
_BLOCK_BIAS = 'layers.{}.attn.relative_position_bias_table'
# What MoCo v3 trains beside the encoder, in mmpretrain's files and mmselfsup's.
_MOCO_V3 = ('base_encoder.', 'momentum_encoder.', 'head.predictor.')
MOCO_V3_SMALL = 'arch=dict(embed_dims=384, num_layers=12, num_heads=12)'


@dataclass
class TeacherWeights:
    """Weights of a masked-image-modeling transformer in mmpretrain's naming.

    Attributes:
        encoder: for ``VisionTransformer`` or ``BEiTViT``.
        decoder: for ``MAEPretrainDecoder``; empty where the file has none.
        unused: names of the file that belong to neither (heads, tokenisers, optimisers).
        official: True if the file had official names, False if it had mmpretrain's.
    """

    encoder: dict[str, Tensor]
    decoder: dict[str, Tensor]
    unused: list[str]
    official: bool

    @property
    def by_moco_v3(self) -> bool:
        """True if the file's other parts are those of MoCo v3; False if they don't tell."""
        return any(name.startswith(_MOCO_V3) for name in self.unused)

    @property
    def shares_bias(self) -> bool:
        """True if all layers of BEiT share one position bias, as when it was pre-trained."""
        return _SHARED_BIAS in self.encoder

    def bias_tables(self, num_layers: int) -> list[str]:
        """Names of BEiT's relative position bias tables that the encoder must have.

        One that all layers share (as pre-trained), or one a layer (as fine-tuned). None if the
        file has absolute position embeddings instead.
        """
        blocks = [_BLOCK_BIAS.format(i) for i in range(num_layers)]
        if self.shares_bias:
            return [_SHARED_BIAS]
        if any(name in self.encoder for name in blocks):
            return blocks
        return [] if 'pos_embed' in self.encoder else [_SHARED_BIAS]


def to_mmpretrain(weights: Mapping[str, Tensor], *, family: str, source: str) -> TeacherWeights:
    """Sorts a checkpoint's tensors into encoder and decoder, in mmpretrain's naming.

    Knows mmpretrain's own files (``backbone.``, ``neck.``), a bare mmpretrain backbone
    (``layers.``), and the official files (``blocks.``, ``decoder_blocks.``).

    Args:
        weights: name to tensor, as the file has them.
        family: 'mae', 'beit', 'beitv2' or 'vit'.
        source: where they come from: for messages.

    Raises:
        ValueError: the names are of none of these layouts.
    """
    if any(name.startswith('backbone.') for name in weights):
        return _from_mmpretrain(weights, family)
    if any(name.startswith('layers.') for name in weights):
        return TeacherWeights(dict(weights), {}, [], official=False)
    if any(name.startswith('blocks.') for name in weights):
        return _from_official(weights, family)
    if any(name.startswith('base_encoder.') for name in weights):
        raise ValueError(
            f'{source} is a training checkpoint of MoCo v3 (names start with base_encoder.): '
            'expected a file of what stands under base_encoder. alone, without that prefix '
            f'(config key checkpoint); for its ViT-S, {MOCO_V3_SMALL}.'
        )
    raise ValueError(
        f'{source} is not a vision transformer that is known here: expected names that start '
        f'with backbone., layers. or blocks.; found {", ".join(list(weights)[:5])}. Give '
        'mmpretrain or official MAE or BEiT weights (config key checkpoint).'
    )


def _from_mmpretrain(weights: Mapping[str, Tensor], family: str) -> TeacherWeights:
    encoder, decoder, unused = {}, {}, []
    for name, value in weights.items():
        part, _, rest = name.partition('.')
        if part == 'backbone':
            encoder[rest] = value
        elif part == 'neck' and family == 'mae':
            decoder[rest] = value
        elif part == 'neck' and family == 'beitv2' and rest in ('norm.weight', 'norm.bias'):
            # BEiT v2 normalizes the encoder's last tokens in its neck (BEiTV2Neck).
            encoder[f'ln1.{rest.removeprefix("norm.")}'] = value
        else:
            unused.append(name)
    return TeacherWeights(encoder, decoder, unused, official=False)


def _from_official(weights: Mapping[str, Tensor], family: str) -> TeacherWeights:
    encoder, decoder = {}, {}
    for name, value in weights.items():
        new = name
        for pattern, replacement in _OFFICIAL:
            new = re.sub(pattern, replacement, new)
        of_decoder = family == 'mae' and (name == 'mask_token' or name.startswith('decoder_'))
        (decoder if of_decoder else encoder)[new] = value
    return TeacherWeights(encoder, decoder, [], official=True)
