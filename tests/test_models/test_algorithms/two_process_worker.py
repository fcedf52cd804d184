"""Trains a tiny H-GKD and a tiny Hybrid Distill, as one of several processes or alone.

Run as ``two_process_worker.py RANK WORLD DIRECTORY``; imported, ``train`` runs in place. Each
process takes its share of the same batches and masks, and batch norm is frozen, so several
processes must do what one does on the joined batch.
"""

import os
import sys
from pathlib import Path

import torch
from mmengine.dist import barrier
from mmpretrain.models.backbones import VisionTransformer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hgkd_mm.models import HGKD, HybridDistill, TeacherOutput
from hgkd_mm.models.teachers.base import BaseTeacher
from hgkd_mm.sparse import CellMask

STEPS, BATCH, SIZE, QUEUE = 4, 6, 16, 10
VIT = dict(
    arch=dict(embed_dims=8, num_layers=4, num_heads=2, feedforward_channels=16),
    img_size=16,
    patch_size=4,
)


class TinyStudent(nn.Module):
    """Two stages of stride 2 and 4."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.stage2 = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU())

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.stage1(x)
        return x, self.stage2(x)


class TinyTeacher(BaseTeacher):
    """A 4 x 4 patch embedding."""

    def __init__(self) -> None:
        super().__init__(
            patch_size=4,
            embed_dim=5,
            embedding_dim=5,
            teacher_view='full',
            mean=(0, 0, 0),
            std=(1, 1, 1),
        )
        self.conv = nn.Conv2d(3, 5, 4, 4)

    def infer(self, images: Tensor, grid: tuple, visible: Tensor | None) -> TeacherOutput:
        tokens = self.conv(images).flatten(2).transpose(1, 2)
        return self.output(tokens, tokens.mean(1), grid)


def hgkd() -> HGKD:
    """The same weights in every process; double precision; batch norm frozen."""
    sim = dict(type='SimilarityDistributionHead', teacher='mim', queue_size=QUEUE)
    model = HGKD(
        backbone=TinyStudent(),
        neck=dict(type='UNetDecoder', width=8, stride=4, out_stride=2),
        teachers=dict(mim=TinyTeacher()),
        heads=dict(
            feat=dict(type='FeatureImitationHead', teacher='mim'),
            sim=sim,
            pixels=dict(type='PixelReconstructionHead'),
        ),
        mask=dict(cell=4, ratio=0.5),
    ).double()
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.eval()
    return model


def hybrid(directory: Path) -> HybridDistill:
    """The same weights in every process; double precision."""
    teachers = {}
    for name in ('cl', 'mim'):
        path = directory / f'{name}.{os.getpid()}.pth'
        state = VisionTransformer(**VIT).state_dict()
        torch.save({f'backbone.{k}': torch.randn_like(v) for k, v in state.items()}, path)
        teachers[name] = dict(type='MIMTeacher', checkpoint=str(path), **VIT)
    relation = dict(
        type='TokenRelationHead', teacher='mim', student_layers=[-1], teacher_layers=[2]
    )
    model = HybridDistill(
        backbone=VisionTransformer(out_type='raw', **VIT),
        teachers=teachers,
        heads=dict(feat=dict(type='FeatureDistillationHead', teacher='cl'), relation=relation),
        masking=dict(keep_ratio=0.75),
    ).double()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    return model


def steps(model: nn.Module, rank: int, world: int) -> list[dict]:
    """Losses, mean gradients and queue of every step, of this process."""
    wrapped = DistributedDataParallel(model) if world > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(1)
    share = BATCH // world
    mine = slice(rank * share, (rank + 1) * share)
    out = []
    for _ in range(STEPS):
        images = torch.randn(BATCH, 3, SIZE, SIZE, generator=generator).double()
        mask = CellMask.random(batch=BATCH, grid=(4, 4), mask_ratio=0.5, generator=generator)
        model.draw_mask = lambda _, visible=mask.visible[mine]: CellMask(visible)
        losses = wrapped(images[mine], mode='loss')
        total, _ = model.parse_losses(losses)
        optimizer.zero_grad()
        total.backward()
        queue = model.heads['sim'].queue.named_buffers() if 'sim' in model.heads else ()
        out.append(
            dict(
                losses={name: value.detach() for name, value in losses.items()},
                gradients={name: p.grad.clone() for name, p in model.named_parameters()},
                queue={name: buffer.clone() for name, buffer in queue},
            )
        )
        optimizer.step()
    return out


def train(rank: int, world: int, directory: Path) -> dict[str, list[dict]]:
    """The steps of both algorithms."""
    torch.manual_seed(0)
    models = dict(hgkd=hgkd(), hybrid=hybrid(directory))
    return {name: steps(model, rank, world) for name, model in models.items()}


def main() -> None:
    """Entry point of a process."""
    rank, world, directory = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{directory}/rendezvous', rank=rank, world_size=world
    )
    torch.save(train(rank, world, directory), directory / f'{rank}.pt')
    barrier()
    # Not an ordinary end, which gloo's threads may abort (`leave_distributed` says how), nor
    # destroy_process_group, in which torch 2.1 may wait for ever for the file of the store.
    os._exit(0)


if __name__ == '__main__':
    main()
