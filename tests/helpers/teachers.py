"""Small vision transformers of mmpretrain with random weights, as checkpoints for teachers."""

from __future__ import annotations

from pathlib import Path

import torch
from mmpretrain.models.necks import MAEPretrainDecoder
from mmpretrain.models.selfsup import BEiTPretrainViT, MAEViT
from torch import Tensor, nn

ARCH = {'embed_dims': 24, 'num_layers': 3, 'num_heads': 2, 'feedforward_channels': 48}
DECODER = {'decoder_embed_dim': 16, 'decoder_depth': 2, 'decoder_num_heads': 2}
IMG_SIZE, PATCH = 64, 16
SIZES = {'arch': ARCH, 'img_size': IMG_SIZE, 'patch_size': PATCH}


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with every weight drawn anew, none of them zero or one."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        values = torch.randn(parameter.shape, generator=generator)
        parameter.data.copy_(values * 0.3 + (0.1 if parameter.dim() > 1 else 0.5))
    module.eval()  # mmpretrain's returns None
    return module


def mae_parts() -> tuple[MAEViT, MAEPretrainDecoder]:
    """An MAE's encoder and decoder."""
    patches = (IMG_SIZE // PATCH) ** 2
    decoder = MAEPretrainDecoder(
        num_patches=patches, patch_size=PATCH, embed_dim=ARCH['embed_dims'], **DECODER
    )
    return randomised(MAEViT(**SIZES), 1), randomised(decoder, 2)


def beit(*, shared: bool = True, final_norm: bool = True) -> BEiTPretrainViT:
    """A BEiT with one position bias for all layers, or one a layer."""
    vit = BEiTPretrainViT(
        **SIZES,
        final_norm=final_norm,
        use_shared_rel_pos_bias=shared,
        use_rel_pos_bias=not shared,
    )
    return randomised(vit, 3)


def prefixed(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """A module's weights with a prefix before each name."""
    return {f'{prefix}{name}': value for name, value in module.state_dict().items()}


def save(weights: dict, path: Path, key: str | None = 'state_dict') -> Path:
    """Writes weights with torch.save, under a key or bare."""
    torch.save(weights if key is None else {key: weights}, path)
    return path


def images(size: tuple[int, int] = (IMG_SIZE, IMG_SIZE), batch: int = 3) -> Tensor:
    """(batch, 3, H, W) float64 noise."""
    generator = torch.Generator().manual_seed(4)
    return torch.randn(batch, 3, *size, generator=generator, dtype=torch.float64)
