"""One rank of the two-process test in test_weights_hooks.py."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import mmpretrain.models  # noqa: F401  registers the networks
import torch
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.runner import CheckpointLoader
from mmpretrain.registry import MODELS
from torch import nn

from hgkd_mm.engine import PretrainedReportHook, PretrainedWeightsError


def main(rank: int, directory: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{directory}/rendezvous', rank=rank, world_size=2
    )
    init = dict(type='Pretrained', checkpoint=f'{directory}/few.pth', prefix='backbone.')
    tiny = dict(type='ResNet', depth=18, stem_channels=4, base_channels=4, init_cfg=init)
    model = nn.Module()
    model.backbone = MODELS.build(tiny)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    runner = SimpleNamespace(
        model=model, optim_wrapper=OptimWrapper(optimizer), logger=MMLogger.get_current_instance()
    )
    reads = []
    read = CheckpointLoader.load_checkpoint
    CheckpointLoader.load_checkpoint = lambda *args, **kwargs: (
        reads.append(args) or read(*args, **kwargs)
    )
    hook = PretrainedReportHook()
    message = 'none'
    try:
        hook.before_run(runner)
        count = len(reads)  # MMEngine itself reads on every rank
        model.backbone.init_weights()
        hook.before_train(runner)
    except PretrainedWeightsError as error:
        message = str(error)
    Path(directory, str(rank)).write_text(f'{count} {message}')
    torch.distributed.barrier()
    # Not an ordinary end, which gloo's threads may abort (`leave_distributed` says how), nor
    # destroy_process_group, in which torch 2.1 may wait for ever for the file of the store.
    os._exit(0)


if __name__ == '__main__':
    main(int(sys.argv[1]), sys.argv[2])
