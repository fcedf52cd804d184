"""Trains a tiny Hybrid Distill as one of several processes or alone.

Run as ``two_teachers_worker.py RANK WORLD DIRECTORY``; imported, its functions run in place.
"""

import os
import sys
from pathlib import Path

import torch
from mmengine.dist import barrier
from mmpretrain.models.backbones import VisionTransformer
from torch.nn.parallel import DistributedDataParallel

from hgkd_mm.models import HybridDistill

BATCH = 4
SIZES = dict(
    arch=dict(embed_dims=8, num_layers=4, num_heads=2, feedforward_channels=16),
    img_size=32,
    patch_size=8,
)


def build(directory: Path, heads: str) -> HybridDistill:
    """The same weights in every process; double precision."""
    torch.manual_seed(0)
    teachers = {}
    for name in ('cl', 'mim'):
        path = directory / f'{name}.{os.getpid()}.pth'
        vit = VisionTransformer(**SIZES)
        torch.save(
            {f'backbone.{k}': torch.randn_like(v) for k, v in vit.state_dict().items()}, path
        )
        teachers[name] = dict(type='MIMTeacher', checkpoint=str(path), family='mae', **SIZES)
    model = HybridDistill(
        backbone=VisionTransformer(out_type='raw', **SIZES),
        teachers=teachers,
        heads=dict(
            feat=dict(type='FeatureDistillationHead', teacher='cl') if heads == 'both' else None,
            relation=dict(
                type='TokenRelationHead', teacher='mim', student_layers=[-1], teacher_layers=[2]
            ),
        ),
        masking=dict(keep_ratio=0.75),
    ).double()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    return model


def train(rank: int, world: int, directory: Path, heads: str) -> dict[str, torch.Tensor]:
    """Mean gradients of a step on this process's share, with both heads or relations alone."""
    model = build(directory, heads)
    wrapped = DistributedDataParallel(model) if world > 1 else model
    images = torch.randn(BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()
    share = BATCH // world
    own = images[rank * share : (rank + 1) * share]
    for _ in range(2):  # In the second one DistributedDataParallel misses what had no gradient.
        wrapped.zero_grad()
        total, _ = model.parse_losses(wrapped(own, mode='loss'))
        total.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def main() -> None:
    """Entry point of a process."""
    rank, world, directory = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{directory}/rendezvous', rank=rank, world_size=world
    )
    out = {heads: train(rank, world, directory, heads) for heads in ('both', 'relation')}
    torch.save(out, directory / f'{rank}.pt')
    barrier()
    # Not an ordinary end, which gloo's threads may abort (`leave_distributed` says how), nor
    # destroy_process_group, in which torch 2.1 may wait for ever for the file of the store.
    os._exit(0)


if __name__ == '__main__':
    main()
