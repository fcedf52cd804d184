"""One training step of a small network with SyncBN, as one of two ranks or alone.

Run as ``sync_bn_worker.py RANK DIRECTORY``. Rank 0 takes one image of four, rank 1 the others,
so that the ranks have unequal visible counts.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from hgkd_mm.sparse import CellMask, prepare, sparsify

VISIBLE = torch.tensor(
    [[[1, 0], [0, 0]], [[1, 1], [0, 1]], [[0, 1], [1, 0]], [[1, 1], [1, 1]]], dtype=torch.bool
)


def step(images: slice) -> dict[str, dict]:
    """Buffers and gradients after a step on these images of the batch."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1),
        nn.BatchNorm2d(4, momentum=0.3),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, 1, 1, bias=False),
        nn.BatchNorm2d(6, momentum=None),
    ).double()
    x = torch.randn(4, 3, 16, 16, dtype=torch.double)
    target = torch.randn(4, 6, 8, 8, dtype=torch.double)
    network = prepare(nn.SyncBatchNorm.convert_sync_batchnorm(network))
    for _ in range(2):
        out = network(sparsify(x[images], CellMask(VISIBLE[images]))).to_dense()
    (out * target[images]).sum().backward()
    return {
        'buffers': dict(network.named_buffers()),
        'gradients': {name: p.grad for name, p in network.named_parameters()},
    }


if __name__ == '__main__':
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    dist.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=2)
    torch.save(step(slice(0, 1) if rank == 0 else slice(1, 4)), folder / f'{rank}.pt')
    dist.barrier()
    # Not an ordinary end, which gloo's threads may abort (`leave_distributed` says how), nor
    # destroy_process_group, in which torch 2.1 may wait for ever for the file of the store.
    os._exit(0)
