"""Masked-image-modeling teachers: MAE, BEiT, BEiT v2."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.models.backbones.beit import RelativePositionBias
from mmpretrain.models.necks import MAEPretrainDecoder
from mmpretrain.models.selfsup import BEiTPretrainViT
from mmpretrain.models.utils import resize_pos_embed
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from hgkd_mm.weights.fit import load_strictly
from hgkd_mm.weights.reading import read_tensors

from ..outputs import TeacherOutput
from ..qkv import attention_blocks, layers_from_zero
from ..tokens import Pair, mean_tokens, on_visible
from .base import BaseTeacher, one_of
from .conversion import TeacherWeights, to_mmpretrain

_VIEWS = {
    'mae': ('full', 'visible', 'mim'),
    'beit': ('full', 'mim'),
    'beitv2': ('full', 'mim'),
    'vit': ('full', 'visible'),
}
# The sizes of the MAE and BEiT papers. mmpretrain's own 's' is an older and wider network.
_ARCHS = {'s': 'deit-small', 'b': 'base', 'l': 'large', 'h': 'huge'}
_IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
_INCEPTION = ((127.5,) * 3, (127.5,) * 3)
_BEIT = ('beit', 'beitv2')


@MODELS.register_module()
class MIMTeacher(BaseTeacher):
    """A pre-trained MAE, BEiT or BEiT v2, on mmpretrain's own networks.

    Of ``teacher_view``, 'visible' runs MAE's encoder on the visible tokens alone (less time);
    ``tokens`` is zero and ``valid`` False elsewhere. 'mim' is the teacher's own inference from the
    visible cells. MAE: encoder on the visible tokens, then its decoder, whose features after the
    decoder's norm are ``tokens``. BEiT: mask tokens in place of hidden patches through the
    encoder. The embedding is the mean over visible positions of the encoder.

    Stated: the teacher is a frozen MIM model such as MAE or BEiT (H-GKD Fig. 2 and 4). Not
    stated, hence knobs: the view (see :class:`BaseTeacher`); the layer (inferred: the last,
    after its norm, as in Feature-Distillation); the embedding (inferred: 'mean', because
    MAE's class token is never trained).

    Args:
        checkpoint: path or URL of mmpretrain's or the official weights, as pre-trained.
        family: 'mae', 'beit' or 'beitv2'; or 'vit' for a ``VisionTransformer`` that was trained
            in another way (with labels, by MoCo v3), as the second teacher of a hybrid.
        arch: 's', 'b', 'l' or 'h' as in the papers (384, 768, 1024, 1280 wide), or a dict with
            ``embed_dims``, ``num_layers``, ``num_heads`` and, if it is not four times the
            width, ``feedforward_channels``. 's' has 6 heads, as DeiT's; MoCo v3's ViT-S has 12,
            which no shape tells: ``dict(embed_dims=384, num_layers=12, num_heads=12)``.
        teacher_view: 'full'; 'visible' for MAE and 'vit'; 'mim' for MAE and BEiT; see above.
        img_size: pixels, or (H, W), of pre-training. Images of other sizes are fine for MAE and
            'vit', whose positions are resized to them.
        patch_size: pixels a token covers.
        layer: block whose output is taken, from 0, or from -1 backwards; of the decoder for
            MAE's 'mim'. Later blocks do not run. The norm comes after the last one.
        embedding: 'mean' of patch tokens, or 'cls'.
        decoder: size of MAE's decoder, for 'mim': ``decoder_embed_dim``, ``decoder_depth``,
            ``decoder_num_heads``, ``mlp_ratio``; MAE's own (512, 8, 16, 4) where left out.
        mean: what the teacher was trained with, R, G, B in 0..255. ImageNet's by default, and
            127.5 for official BEiT (v1) weights.
        std: the same, standard deviations.
        token_stride: pixels that a token is to cover, see :class:`BaseTeacher`.
        dtype: 'bfloat16', 'float16' or None, see :class:`BaseTeacher`.
        trust_checkpoint: let the file run pickled code, if it cannot be read otherwise.

    Raises:
        ValueError: an argument is unknown or out of range, there is no checkpoint, or it is
            MoCo v3's and ``arch`` another network's.
        FileNotFoundError: the checkpoint is not there.
        RuntimeError: it is damaged, or its weights are not this network's, see
            :func:`~hgkd_mm.weights.fit.load_strictly`.
    """

    def __init__(
        self,
        *,
        checkpoint: str | Path | None,
        family: str = 'mae',
        arch: str | dict = 'b',
        teacher_view: str = 'full',
        img_size: int | Pair = 224,
        patch_size: int = 16,
        layer: int = -1,
        embedding: str = 'mean',
        decoder: dict | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        token_stride: int | None = None,
        dtype: str | None = None,
        trust_checkpoint: bool = False,
    ) -> None:
        one_of('family', family, tuple(_VIEWS))
        one_of(f'teacher_view of family={family!r}', teacher_view, _VIEWS[family])
        one_of('embedding', embedding, ('mean', 'cls'))
        source = str(checkpoint)
        weights = to_mmpretrain(
            read_tensors(checkpoint, key='config key checkpoint', trusted=trust_checkpoint),
            family=family,
            source=source,
        )
        decodes = family == 'mae' and teacher_view == 'mim'
        if not decodes:
            weights.unused.extend(weights.decoder)
        vit = _loaded_encoder(
            family, weights, source, arch=_arch(arch), img_size=img_size, patch_size=patch_size
        )
        mae_decoder = _loaded_decoder(vit, weights, source, decoder or {}) if decodes else None
        own_mean, own_std = _INCEPTION if family == 'beit' and weights.official else _IMAGENET
        super().__init__(
            patch_size=patch_size,
            embed_dim=mae_decoder.decoder_embed.out_features if decodes else vit.embed_dims,
            embedding_dim=vit.embed_dims,
            teacher_view=teacher_view,
            mean=own_mean if mean is None else mean,
            std=own_std if std is None else std,
            token_stride=token_stride,
            dtype=dtype,
        )
        self.family = family
        self.embedding = embedding
        self.vit = vit
        self.decoder = mae_decoder
        if decodes:
            self._stop_decoder_after(layer)
        else:
            self._stop_encoder_after(layer)
        self.freeze()
        MMLogger.get_current_instance().info(
            f'Teacher {family}: view {teacher_view!r}, mean {self.mean}, std {self.std}.'
        )

    def _stop_encoder_after(self, layer: int) -> None:
        (last,) = layers_from_zero([layer], self.vit.num_layers, key='layer')
        self.vit.layers = self.vit.layers[: last + 1]
        self.vit.out_indices = [last]
        self.vit.final_norm = last == self.vit.num_layers - 1

    def _stop_decoder_after(self, layer: int) -> None:
        blocks = self.decoder.decoder_blocks
        (last,) = layers_from_zero([layer], len(blocks), key='layer')
        if last < len(blocks) - 1:
            self.decoder.decoder_blocks = blocks[: last + 1]
            self.decoder.ln1 = nn.Identity()

    @property
    def prefix(self) -> int:
        return self.vit.num_extra_tokens

    @property
    def has_cls(self) -> bool:
        """False with the decoder, whose class token has another width and no use."""
        return self.decoder is None

    @property
    def hides_tokens(self) -> bool:
        return self.teacher_view == 'visible' or self.decoder is not None

    def blocks(self) -> Sequence[nn.Module]:
        """Those of the encoder."""
        return attention_blocks(self.vit)

    def infer(self, images: Tensor, grid: Pair, visible: Tensor | None) -> TeacherOutput:
        if self.family in _BEIT and grid != tuple(self.vit.patch_resolution):
            raise ValueError(
                f"BEiT's relative positions are those of {self.vit.img_size} pixels (img_size), "
                f'the teacher got images of {tuple(images.shape[2:])}: change the crop size.'
            )
        if self.hides_tokens:
            cls, tokens = on_visible(
                self._encode, images, visible, layer=self.vit.drop_after_pos, prefix=self.prefix
            )
        else:
            features = self._encode(images, None if visible is None else ~visible)
            cls, tokens = features[:, 0], features[:, self.prefix :]
        embedding = cls if self.embedding == 'cls' else mean_tokens(tokens, visible)
        if self.decoder is not None:
            tokens = self._decode(cls, tokens, visible)
        valid = visible if self.teacher_view == 'visible' else None
        return self.output(tokens, embedding, grid, valid, cls if self.has_cls else None)

    def _encode(self, images: Tensor, hidden: Tensor | None = None) -> Tensor:
        """(B, 1 + n, D); BEiT has mask tokens in the place of hidden patches."""
        (features,) = self.vit(images, hidden) if self.family in _BEIT else self.vit(images)
        return features

    def _decode(self, cls: Tensor, tokens: Tensor, visible: Tensor) -> Tensor:
        """(B, N, decoder width) features of all positions, from the encoder's visible ones."""
        x = self.decoder.decoder_embed(torch.cat([cls.unsqueeze(1), tokens], dim=1))
        shown = visible.flatten(1).unsqueeze(-1)
        patches = torch.where(shown, x[:, 1:], self.decoder.mask_token.to(x.dtype))
        positions = resize_pos_embed(
            self.decoder.decoder_pos_embed,
            self.vit.patch_resolution,
            tuple(visible.shape[1:]),
            num_extra_tokens=1,
        )
        x = torch.cat([x[:, :1], patches], dim=1) + positions
        for block in self.decoder.decoder_blocks:
            x = block(x)
        return self.decoder.decoder_norm(x)[:, 1:]


def _arch(arch: str | dict) -> str | dict:
    """What mmpretrain calls this size."""
    if isinstance(arch, str):
        one_of('arch', arch, tuple(_ARCHS))
        return _ARCHS[arch]
    return {'feedforward_channels': 4 * arch['embed_dims'], **arch}


def _loaded_encoder(
    family: str, weights: TeacherWeights, source: str, **size: object
) -> VisionTransformer | BEiTPretrainViT:
    beit = family in _BEIT
    # Built without memory, so that no weight can keep a random value, nor the making of a
    # teacher move the random numbers that the student is initialized with.
    with torch.device('meta'):
        vit = (BEiTPretrainViT if beit else VisionTransformer)(out_type='raw', **size)
    heads = vit.arch_settings['num_heads']
    if weights.by_moco_v3 and vit.embed_dims == 384 and heads != 12:
        raise ValueError(
            f'{source} is of MoCo v3, whose ViT-S has 12 heads, and arch has {heads}: set '
            'arch=dict(embed_dims=384, num_layers=12, num_heads=12).'
        )
    if beit:
        # Its index follows from the grid, and a file need not have it.
        vit.rel_pos_bias = RelativePositionBias(vit.patch_resolution, heads)
        index = {'rel_pos_bias.relative_position_index': vit.rel_pos_bias.relative_position_index}
        weights.encoder.update(index)
    load_strictly(
        vit,
        weights.encoder,
        what='encoder',
        source=source,
        unused=weights.unused,
        hint=(
            'Check the config keys checkpoint, family, arch, patch_size and img_size (of '
            'pre-training). Fine-tuned weights, and a ViT with further parts, are a TIMMTeacher.'
        ),
    )
    return vit


def _loaded_decoder(
    vit: VisionTransformer, weights: TeacherWeights, source: str, size: dict
) -> MAEPretrainDecoder:
    patches = vit.patch_resolution[0] * vit.patch_resolution[1]
    with torch.device('meta'):
        decoder = MAEPretrainDecoder(num_patches=patches, embed_dim=vit.embed_dims, **size)
    decoder.decoder_pred = nn.Identity()  # pixels are not wanted, its weights need not be there
    load_strictly(
        decoder,
        weights.decoder,
        what='decoder',
        source=source,
        beside=re.compile(r'decoder_pred\.'),
        hint=(
            "teacher_view='mim' needs the decoder, which encoder-only files of MAE lack: use "
            "weights that have it, or teacher_view='full' or 'visible'. Check the config key "
            'decoder for its size.'
        ),
    )
    return decoder
