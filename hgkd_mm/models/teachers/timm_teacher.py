"""Teachers from timm."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import timm
import torch
from mmpretrain.registry import MODELS
from timm.data import resolve_model_data_config
from timm.models import VisionTransformer
from torch import Tensor, nn

from hgkd_mm.weights.fit import load_strictly
from hgkd_mm.weights.reading import read_tensors

from ..outputs import TeacherOutput
from ..qkv import attention_blocks
from ..tokens import Pair, mean_tokens, on_visible
from .base import BaseTeacher, one_of


@MODELS.register_module()
class TIMMTeacher(BaseTeacher):
    """Any timm network as a teacher: ViTs (DeiT, DINO, CLIP, ...), Swin, CNNs.

    The last features before pooling, after the last norm, are the tokens, without class and
    register tokens. Where timm has that norm between pooling and classifier (EVA-02 and BEiT,
    ConvNeXt, any ViT with ``global_pool='avg'``), tokens and class token are normed one by one,
    and the mean embedding is the normed mean (docs/pretraining.md).

    Args:
        name: what timm calls the network, for example 'vit_base_patch16_224.dino'.
        checkpoint: path or URL of its weights, in timm's naming. Nothing is fetched by name.
        teacher_view: 'full', or 'visible' for timm's VisionTransformer.
        embedding: 'mean' of the tokens (inferred: as for :class:`MIMTeacher`), or 'cls'.
        model_kwargs: further arguments of ``timm.create_model``, such as ``img_size`` for
            networks with fixed positions. ViTs that can take any size do. A MoCo v3 ViT-S needs
            ``num_heads=12``.
        mean: what the teacher was trained with, R, G, B in 0..255; timm's entry by default.
        std: the same, standard deviations.
        token_stride: pixels that a token is to cover, see :class:`BaseTeacher`.
        dtype: 'bfloat16', 'float16' or None, see :class:`BaseTeacher`.
        trust_checkpoint: let the file run pickled code, if it cannot be read otherwise.

    Raises:
        ValueError: the weights were trained in another network, an argument is unknown or does not
            suit the network, or there is no checkpoint.
        FileNotFoundError: the checkpoint is not there.
        RuntimeError: timm has no such network, the checkpoint is damaged, or its weights are not
            this network's, see :func:`~hgkd_mm.weights.fit.load_strictly`.
    """

    views = ('full', 'visible')

    def __init__(
        self,
        *,
        name: str,
        checkpoint: str | Path | None,
        teacher_view: str = 'full',
        embedding: str = 'mean',
        model_kwargs: dict | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        token_stride: int | None = None,
        dtype: str | None = None,
        trust_checkpoint: bool = False,
    ) -> None:
        one_of('embedding', embedding, ('mean', 'cls'))
        weights = read_tensors(checkpoint, key='config key checkpoint', trusted=trust_checkpoint)
        model = _create(name, model_kwargs or {})
        _check_activation(model, name)
        _check_abilities(model, name, teacher_view, embedding)
        data = resolve_model_data_config(model)
        super().__init__(
            patch_size=model.feature_info[-1]['reduction'],
            embed_dim=model.num_features,
            embedding_dim=model.num_features,
            teacher_view=teacher_view,
            mean=[255 * m for m in data['mean']] if mean is None else mean,
            std=[255 * s for s in data['std']] if std is None else std,
            token_stride=token_stride,
            dtype=dtype,
        )
        load_strictly(
            model,
            weights,
            what=f'network {name}',
            source=str(checkpoint),
            hint=(
                'Check the config keys name, checkpoint and model_kwargs. The weights must be '
                'named as timm names them; where timm has fc_norm and the file norm, '
                "model_kwargs=dict(global_pool='token') makes the network end with norm."
            ),
        )
        self.name = name
        self.embedding = embedding
        self.model = model
        self.freeze()

    @property
    def prefix(self) -> int:
        return getattr(self.model, 'num_prefix_tokens', 0)  # CNNs have none

    @property
    def has_cls(self) -> bool:
        return getattr(self.model, 'cls_token', None) is not None

    def blocks(self) -> Sequence[nn.Module]:
        if not isinstance(self.model, VisionTransformer):
            return super().blocks()
        return attention_blocks(self.model)

    def infer(self, images: Tensor, grid: Pair, visible: Tensor | None) -> TeacherOutput:
        network = self.model.forward_features
        if visible is None:
            first, tokens = self._split(network(images), grid)
        else:
            first, tokens = on_visible(
                network, images, visible, layer=self.model.patch_drop, prefix=self.prefix
            )
        embedding = first if self.embedding == 'cls' else mean_tokens(tokens, visible)
        norm = _norm_after_pooling(self.model)
        if norm is not None:
            embedding, tokens, first = norm(embedding), norm(tokens), norm(first)
            if visible is not None:
                tokens = tokens * visible.flatten(1).unsqueeze(-1)
        return self.output(tokens, embedding, grid, visible, first if self.has_cls else None)

    def _split(self, features: Tensor, grid: Pair) -> tuple[Tensor, Tensor]:
        """First token and (B, N, D) patch tokens, from whichever layout the network has."""
        if features.shape[1:] == (self.embed_dim, *grid):
            features = features.movedim(1, -1)
        if features.shape[1:] == (*grid, self.embed_dim):
            features = features.flatten(1, 2)
        if features.dim() != 3 or features.shape[1] != self.prefix + grid[0] * grid[1]:
            raise ValueError(
                f'{self.name} gives features of shape {tuple(features.shape)}, expected '
                f'{grid[0]} x {grid[1]} tokens of {self.embed_dim} channels. It cannot be a '
                'teacher here; choose another timm name.'
            )
        return features[:, 0], features[:, self.prefix :]


def _create(name: str, kwargs: dict) -> nn.Module:
    """The network with random weights, all of which are replaced later."""
    # The student's initial weights must not depend on whether there is a teacher.
    with torch.random.fork_rng(devices=[]):
        try:
            return timm.create_model(
                name, pretrained=False, num_classes=0, **{'dynamic_img_size': True, **kwargs}
            )
        except TypeError:  # not one of the ViTs that resize their positions to the image
            return timm.create_model(name, pretrained=False, num_classes=0, **kwargs)


def _norm_after_pooling(model: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """The norm of (..., D) that timm applies to pooled features, if there is one."""
    for holder, name in ((model, 'fc_norm'), (getattr(model, 'head', None), 'norm')):
        norm = getattr(holder, name, None)
        # A classifier with a hidden layer may have a norm of that layer's width there.
        if getattr(norm, 'normalized_shape', None) == (model.num_features,):
            if '2d' in type(norm).__name__:  # of (B, D, H, W)
                return lambda x: norm(x.reshape(-1, x.shape[-1], 1, 1)).view_as(x)
            return norm
    return None


def _check_activation(model: nn.Module, name: str) -> None:
    """Weights load into both kinds of GELU, and with the wrong one give other features."""
    notes = ' '.join(model.pretrained_cfg.get('notes') or ())
    if 'quickgelu' in notes.lower() and 'quickgelu' not in name:
        size = re.search(r'_\d+(\.|$)', name)
        right = name if size is None else f'{name[: size.start()]}_quickgelu{name[size.start() :]}'
        raise ValueError(
            f'{name!r} is a network with GELU, but timm notes that its weights were trained with '
            f'QuickGELU: set the config key name to {right!r}, for the same weights.'
        )


def _check_abilities(model: nn.Module, name: str, teacher_view: str, embedding: str) -> None:
    if teacher_view == 'visible' and not isinstance(model, VisionTransformer):
        raise ValueError(
            f"teacher_view='visible' works for timm's VisionTransformer only, and {name} is a "
            f"{type(model).__name__}. Set teacher_view='full'."
        )
    if embedding == 'cls' and getattr(model, 'cls_token', None) is None:
        raise ValueError(f"{name} has no class token: set embedding='mean'.")
