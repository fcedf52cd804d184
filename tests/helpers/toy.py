"""A data set, a model and a metric that a run of MMEngine takes seconds for, and their config."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from torch import Tensor

# a step of SGD with lr 1 moves `centre` from 0 to the mean of the joint batch
CONFIG = """
custom_imports = dict(imports=['helpers.toy'])
model = dict(type='Centre', norm_cfg=dict(type='{norm}'))
train_dataloader = dict(
    batch_size={batch}, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='FourNumbers'))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1.0))
train_cfg = dict(by_epoch=True, max_epochs=1)
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
test_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='FourNumbers'))
test_evaluator = dict(type='Mean')
test_cfg = dict()
"""


@DATASETS.register_module()
class FourNumbers(torch.utils.data.Dataset):
    """1, 2, 3 and 4; ``names`` is a file that is read."""

    metainfo = {}

    def __init__(self, names: str | None = None) -> None:
        self.names = names and Path(names).read_text()

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor([float(index + 1)])


@MODELS.register_module()
class Centre(BaseModel):
    """One weight; its norm has to be that of the processor."""

    def __init__(self, norm_cfg: dict, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        assert norm_cfg['type'] == 'BN'
        self.centre = torch.nn.Parameter(torch.zeros(1))

    def forward(self, *numbers: Tensor, mode: str = 'tensor') -> dict | list[dict]:
        """Half the squared distance, or each number moved by the weight."""
        if mode == 'loss':
            return dict(loss=torch.stack(numbers).sub(self.centre).square().mean() / 2)
        return [dict(moved=number + self.centre) for number in numbers]


@METRICS.register_module()
class Mean(BaseMetric):
    """The mean of the moved numbers."""

    def process(self, data_batch: object, data_samples: list[dict]) -> None:
        """Keeps the numbers of a batch."""
        self.results += [sample['moved'].item() for sample in data_samples]

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        """Averages them."""
        return dict(mean=sum(results) / len(results))
