"""One rank of the two-process test in test_non_finite_hook.py: only rank 1's loss breaks."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from hgkd_mm.engine import NonFiniteError, NonFiniteLossHook


def main(rank: int, directory: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{directory}/rendezvous', rank=rank, world_size=2
    )
    hook = NonFiniteLossHook(interval=4)
    runner = SimpleNamespace(iter=0, hooks=[hook], model=nn.Linear(1, 1), work_dir='runs/a')
    message = 'none'
    try:
        for runner.iter in range(8):
            broken = rank == 1 and runner.iter >= 2
            loss = torch.tensor(float('inf') if broken else 1.0)
            hook.after_train_iter(runner, runner.iter, outputs={'loss': loss, 'loss_sim': loss})
    except NonFiniteError as error:
        message = f'{runner.iter + 1} {error}'
    Path(directory, str(rank)).write_text(message)
    torch.distributed.barrier()
    # Not an ordinary end, which gloo's threads may abort (`leave_distributed` says how), nor
    # destroy_process_group, in which torch 2.1 may wait for ever for the file of the store.
    os._exit(0)


if __name__ == '__main__':
    main(int(sys.argv[1]), sys.argv[2])
