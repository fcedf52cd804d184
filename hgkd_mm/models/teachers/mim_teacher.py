"""Masked-image-modeling teachers: MAE, BEiT, BEiT v2."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from mmpretrain.models.backbones import BEiTViT, VisionTransformer
from mmpretrain.models.necks import MAEPretrainDecoder
from mmpretrain.models.selfsup import BEiTPretrainViT
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from hgkd_mm.weights.fit import load_strictly
from hgkd_mm.weights.reading import read_tensors

from ..outputs import TeacherOutput
from ..qkv import attention_blocks, layers_from_zero
from ..tokens import Pair, after_norm, mean_tokens, on_visible, take
from .base import BaseTeacher, one_of
from .conversion import MOCO_V3_SMALL, TeacherWeights, to_mmpretrain
from .encoders import BEiTEncoder, MAEDecoder, RelativePositions, ViTEncoder, table_length

# The sizes of the MAE and BEiT papers. mmpretrain's own 's' is an older and wider network.
_ARCHS = {'s': 'deit-small', 'b': 'base', 'l': 'large', 'h': 'huge'}
_IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
_INCEPTION = ((127.5,) * 3, (127.5,) * 3)


@MODELS.register_module()
class MIMTeacher(BaseTeacher):
    """A pre-trained MAE, BEiT or BEiT v2, on mmpretrain's own networks.

    Of ``teacher_view``, 'visible' runs the encoder on the visible tokens alone (less time), with
    the rows and columns of BEiT's position bias that belong to them; ``tokens`` is zero and
    ``valid`` False elsewhere. 'mim' is the teacher's own inference from the visible cells. MAE:
    encoder on the visible tokens, then its decoder, whose features after the decoder's norm are
    ``tokens``. BEiT: mask tokens in place of hidden patches through the encoder. The embedding
    is the mean over visible positions of the encoder.

    Stated: the teacher is a frozen MIM model such as MAE or BEiT (H-GKD Fig. 2 and 4). Not
    stated, hence knobs: the view (see :class:`BaseTeacher`); the layer (inferred: the last,
    after its norm, as in Feature-Distillation); the embedding (inferred: 'mean', because
    MAE's class token is never trained).

    Args:
        checkpoint: path or URL of mmpretrain's or the official weights.
        family: 'mae', 'beit' or 'beitv2'; or 'vit' for a ``VisionTransformer`` that was trained
            in another way (with labels, by MoCo v3), as the second teacher of a hybrid.
        arch: 's', 'b', 'l' or 'h' as in the papers (384, 768, 1024, 1280 wide), or a dict with
            ``embed_dims``, ``num_layers``, ``num_heads`` and, if it is not four times the
            width, ``feedforward_channels``. 's' has 6 heads, as DeiT's; MoCo v3's ViT-S has 12,
            which no shape tells: ``dict(embed_dims=384, num_layers=12, num_heads=12)``.
        teacher_view: 'full', 'visible' or 'mim', see above.
        img_size: pixels, or (H, W), of pre-training. Images of other sizes are fine: positions
            are resized to them.
        patch_size: pixels a token covers.
        layer: block whose output is taken, from 0, or from -1 backwards; of the decoder for
            MAE's 'mim'.
        embedding: 'mean' of patch tokens, or 'cls'.
        final_norm: False for weights without a norm after the last block (fine-tuned ones),
            whose norm after pooling (``fc_norm``, or mmpretrain's ``ln2``), if any, is applied to
            each token, the class token and the mean of the tokens.
        decoder: size of MAE's decoder, for 'mim': ``decoder_embed_dim``, ``decoder_depth``,
            ``decoder_num_heads``, ``mlp_ratio``; MAE's own (512, 8, 16, 4) where left out.
        mean: what the teacher was trained with, R, G, B in 0..255. ImageNet's by default, and
            127.5 for official BEiT (v1) weights and fine-tuned ones.
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
        final_norm: bool = True,
        decoder: dict | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        token_stride: int | None = None,
        dtype: str | None = None,
        trust_checkpoint: bool = False,
    ) -> None:
        one_of('family', family, ('mae', 'beit', 'beitv2', 'vit'))
        if family == 'vit' and teacher_view == 'mim':
            raise ValueError(
                "teacher_view='mim' needs a teacher that infers hidden patches, which family='vit' "
                "does not: set teacher_view='full' or 'visible'."
            )
        one_of('embedding', embedding, ('mean', 'cls'))
        settings = _arch(arch)
        weights = to_mmpretrain(
            read_tensors(checkpoint, key='config key checkpoint', trusted=trust_checkpoint),
            family=family,
            source=str(checkpoint),
        )
        decodes = family == 'mae' and teacher_view == 'mim'
        # Built without memory, so that no weight can keep a random value, nor the making of a
        # teacher move the random numbers that the student is initialized with.
        with torch.device('meta'):
            vit = _vit(family, settings, img_size, patch_size, final_norm, teacher_view, weights)
            mae_decoder = _decoder(vit, patch_size, decoder) if decodes else None
        heads = vit.arch_settings['num_heads']
        if weights.by_moco_v3 and vit.embed_dims == 384 and heads != 12:
            raise ValueError(
                f'{checkpoint} is of MoCo v3, whose ViT-S has 12 heads, and arch={arch!r} has '
                f'{heads}: set {MOCO_V3_SMALL}.'
            )
        own_mean, own_std = _own_normalization(family, weights)
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
        self.embedding = embedding
        if not decodes:
            weights.unused.extend(weights.decoder)
        self.encoder = _load_encoder(vit, weights, str(checkpoint), layer=-1 if decodes else layer)
        last = not final_norm and self.encoder.layer == vit.num_layers - 1
        self.pooled_norm = _norm_after_pooling(vit, weights, str(checkpoint)) if last else None
        self.decoder = None
        if decodes:
            self.decoder = _load_decoder(mae_decoder, vit, weights, str(checkpoint), layer=layer)
        self.freeze()
        MMLogger.get_current_instance().info(
            f'Teacher {family}: view {teacher_view!r}, mean {self.mean}, std {self.std}.'
        )

    @property
    def prefix(self) -> int:
        return self.encoder.vit.num_extra_tokens

    @property
    def has_cls(self) -> bool:
        """False with the decoder, whose class token has another width and no use."""
        return self.decoder is None

    @property
    def hides_tokens(self) -> bool:
        return self.teacher_view == 'visible' or self.decoder is not None

    def blocks(self) -> Sequence[nn.Module]:
        """Those of the encoder."""
        return attention_blocks(self.encoder.vit)[: self.encoder.layer + 1]

    def infer(self, images: Tensor, grid: Pair, visible: Tensor | None) -> TeacherOutput:
        tokens = self.encoder.embed(images, grid)
        if visible is not None and not self.hides_tokens:
            shown = visible.flatten(1).unsqueeze(-1)
            tokens = torch.where(shown, tokens, self.encoder.vit.mask_token.to(tokens.dtype))
        tokens = self.encoder.place(tokens, grid)
        if self.hides_tokens:
            cls, tokens = on_visible(
                tokens, visible, lambda x, index: self.encoder(take(x, index), grid, index)
            )
        else:
            cls, tokens = self.encoder(tokens, grid)
        embedding = cls if self.embedding == 'cls' else mean_tokens(tokens, visible)
        valid = visible if self.teacher_view == 'visible' else None
        if self.pooled_norm is not None:
            embedding, tokens, cls = after_norm(self.pooled_norm, embedding, tokens, cls, valid)
        if self.decoder is not None:
            tokens = self.decoder(cls, tokens, visible)
        return self.output(tokens, embedding, grid, valid, cls if self.has_cls else None)


def _arch(arch: str | dict) -> str | dict:
    """What mmpretrain calls this size."""
    if isinstance(arch, str):
        one_of('arch', arch, tuple(_ARCHS))
        return _ARCHS[arch]
    missing = {'embed_dims', 'num_layers', 'num_heads'} - set(arch)
    if missing or arch['embed_dims'] % arch['num_heads']:
        raise ValueError(
            'arch as a dict has embed_dims, num_layers and num_heads, and num_heads divides '
            f'embed_dims; got {dict(arch)}.'
        )
    return {'feedforward_channels': 4 * arch['embed_dims'], **arch}


def _vit(
    family: str,
    arch: str | dict,
    img_size: int | Pair,
    patch_size: int,
    final_norm: bool,
    teacher_view: str,
    weights: TeacherWeights,
) -> VisionTransformer | BEiTViT:
    """The network without weights; BEiT's without position bias, see :class:`BEiTEncoder`."""
    size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
    if len(size) != 2 or min(size) < patch_size or any(s % patch_size for s in size):
        raise ValueError(
            f'img_size={img_size} does not divide into patches of patch_size={patch_size}.'
        )
    common = {
        'arch': arch,
        'img_size': size,
        'patch_size': patch_size,
        'final_norm': final_norm,
        'out_type': 'raw',
    }
    if family in ('mae', 'vit'):
        return VisionTransformer(**common)
    network = BEiTPretrainViT if teacher_view == 'mim' else BEiTViT
    return network(
        use_abs_pos_emb='pos_embed' in weights.encoder,
        use_rel_pos_bias=False,
        use_shared_rel_pos_bias=False,
        **common,
    )


def _decoder(vit: VisionTransformer, patch_size: int, size: dict | None) -> MAEPretrainDecoder:
    known = {'decoder_embed_dim', 'decoder_depth', 'decoder_num_heads', 'mlp_ratio'}
    unknown = set(size or {}) - known
    if unknown:
        raise ValueError(f'decoder has unknown keys {sorted(unknown)}; known are {sorted(known)}.')
    gh, gw = vit.patch_resolution
    return MAEPretrainDecoder(
        num_patches=gh * gw, patch_size=patch_size, embed_dim=vit.embed_dims, **(size or {})
    )


def _load_encoder(
    vit: VisionTransformer | BEiTViT, weights: TeacherWeights, source: str, layer: int
) -> ViTEncoder:
    (layer,) = layers_from_zero([layer], vit.num_layers, key='layer')
    beit = isinstance(vit, BEiTViT)
    names = weights.bias_tables(vit.num_layers) if beit else []
    bias_shape = (table_length(vit.patch_resolution), vit.arch_settings['num_heads'])
    load_strictly(
        vit,
        weights.encoder,
        what='encoder',
        source=source,
        unused=weights.unused,
        shapes=dict.fromkeys(names, bias_shape),
        hint=(
            'Check the config keys checkpoint, family, arch, patch_size and img_size (of '
            'pre-training). Fine-tuned weights may need final_norm=False, and a ViT with further '
            'parts is a TIMMTeacher.'
        ),
    )
    if not beit:
        return ViTEncoder(vit, layer)
    positions = None
    if names:
        tables = [weights.encoder[name].to(vit.cls_token.dtype) for name in names]
        positions = RelativePositions(tables, vit.patch_resolution, vit.num_layers)
    return BEiTEncoder(vit, layer, positions)


def _norm_after_pooling(
    vit: VisionTransformer | BEiTViT, weights: TeacherWeights, source: str
) -> nn.LayerNorm | None:
    """The norm of pooled tokens that fine-tuning put in the place of the final one, if any."""
    found = [
        {name: weights.encoder.get(f'{norm}.{name}') for name in ('weight', 'bias')}
        for norm in ('fc_norm', 'ln2')  # the official name, and mmpretrain's
    ]
    state = next((state for state in found if None not in state.values()), None)
    if state is None:
        return None
    norm = nn.LayerNorm(vit.embed_dims, eps=1e-6)
    load_strictly(norm, state, what='norm', source=source, hint='Check the config key arch.')
    return norm


def _load_decoder(
    decoder: MAEPretrainDecoder, vit: nn.Module, weights: TeacherWeights, source: str, layer: int
) -> MAEDecoder:
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
    (layer,) = layers_from_zero([layer], len(decoder.decoder_blocks), key='layer')
    return MAEDecoder(decoder, vit.patch_resolution, layer)


def _own_normalization(
    family: str, weights: TeacherWeights
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """ImageNet's mean and std for MAE, BEiT v2 and mmpretrain's BEiT, else 127.5.

    That is for BEiT v1's released weights (ImageNet-22k) and BEiT fine-tuned by either (unilm
    beit/README.md; mmpretrain configs/beit), whose position bias is no longer shared.
    """
    if family == 'beit' and (weights.official or not weights.shares_bias):
        return _INCEPTION
    return _IMAGENET
