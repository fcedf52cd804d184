"""One rank of the two-process test in test_features.py: extract, save what arrived."""

import os
import sys
from pathlib import Path

import torch
from mmpretrain.models import SelfSupDataPreprocessor
from mmpretrain.structures import DataSample
from torch import nn
from torch.utils.data import Dataset

from hgkd_mm.evaluation import extract_features


class Numbered(Dataset):
    """Image i is constantly i and has label i + 100."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict:
        sample = DataSample().set_gt_label(index + 100)
        return {'inputs': torch.full((3, 4, 4), index).byte(), 'data_samples': sample}


class Broken(Numbered):
    """Image 1, which is rank 1's, cannot be read."""

    def __getitem__(self, index: int) -> dict:
        if index == 1:
            raise OSError('cannot read 1.jpg')
        return super().__getitem__(index)


def main(rank: int, directory: str, sizes: list[int]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{directory}/rendezvous', rank=rank, world_size=2
    )
    network = nn.AvgPool2d(2)
    how = dict(data_preprocessor=SelfSupDataPreprocessor(), batch_size=2)
    for size in sizes:
        found = extract_features(network, Numbered(size), **how)
        torch.save(tuple(found), f'{directory}/{size}.{rank}')
    try:
        extract_features(network, Broken(5), **how)
    except RuntimeError as error:
        Path(directory, f'error.{rank}').write_text(str(error))
    torch.distributed.barrier()
    # Not an ordinary end, which gloo's threads may abort (`leave_distributed` says how), nor
    # destroy_process_group, in which torch 2.1 may wait for ever for the file of the store.
    os._exit(0)


if __name__ == '__main__':
    main(int(sys.argv[1]), sys.argv[2], [int(size) for size in sys.argv[3:]])
