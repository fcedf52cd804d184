"""Stand-ins for the files of mmpretrain's zoo, in its naming, at the sizes a config asks for."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.models.selfsup import BEiTPretrainViT, MAEViT
from torch import Tensor, nn

from .teachers import save

# Width, depth and heads in the papers: ViT (arXiv 2010.11929, table 1), DeiT for 's'.
PAPER_ARCHS = {
    's': (384, 12, 6),
    'b': (768, 12, 12),
    'l': (1024, 24, 16),
    'h': (1280, 32, 16),
}


def full_arch(arch: str | dict) -> dict:
    """A teacher's ``arch`` spelt out, from the papers rather than from the package."""
    if isinstance(arch, dict):
        return dict(arch)
    width, depth, heads = PAPER_ARCHS[arch]
    return {
        'embed_dims': width,
        'num_layers': depth,
        'num_heads': heads,
        'feedforward_channels': 4 * width,
    }


def checkpoint_of(teacher: dict, path: Path, *, noise: bool = False) -> Path:
    """Writes a stand-in for the file of any teacher's config; see `zoo_checkpoint`."""
    if teacher['type'] == 'MIMTeacher':
        return zoo_checkpoint(teacher, path, noise=noise)
    with torch.device('meta'):
        network = timm.create_model(teacher['name'])
    return save(_values(network, noise=noise), path, None)


def zoo_checkpoint(teacher: dict, path: Path, *, noise: bool = False) -> Path:
    """Writes what the zoo's file for this ``MIMTeacher`` config holds of its encoder.

    Args:
        teacher: the config; ``family``, ``arch``, ``img_size`` and ``patch_size`` count.
        path: where to write.
        noise: random weights. Otherwise each is one number a row, spread over its shape, which
            makes small files and teachers with little memory of their own.
    """
    family = teacher.get('family', 'mae')
    network, own = {'mae': (MAEViT, {}), 'vit': (VisionTransformer, {})}.get(
        family,
        (BEiTPretrainViT, {'use_shared_rel_pos_bias': True, 'use_rel_pos_bias': False}),
    )
    with torch.device('meta'):
        vit = network(
            arch=full_arch(teacher.get('arch', 'b')),
            img_size=teacher.get('img_size', 224),
            patch_size=teacher.get('patch_size', 16),
            **own,
        )
    weights = _values(vit, noise=noise)
    return save({f'backbone.{name}': value for name, value in weights.items()}, path)


def _values(network: nn.Module, *, noise: bool) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    weights = {}
    for name, parameter in network.named_parameters():
        shape = parameter.shape
        rows = shape if noise else (*shape[:1], *[1] * (len(shape) - 1))
        weights[name] = (torch.randn(rows, generator=generator) * 0.05).expand(shape)
    return weights
