"""kNN and linear probe of frozen features on Scenes, for students and teachers alike."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from hgkd_mm.evaluation import build_labelled_dataset, extract_features, knn_accuracy, linear_probe
from hgkd_mm.sparse import CellMask
from hgkd_mm.weights.reading import read_tensors

from .places import CONFIGS


class FrozenEvaluation:
    """Top-1 of frozen features on the validation images of Scenes, percent by classifier.

    Args:
        scenes: folder of Scenes.
        bank: labelled training images to learn from.
    """

    def __init__(self, scenes: Path, bank: int) -> None:
        datasets = Config.fromfile(CONFIGS / '_base_' / 'datasets' / 'scenes_cls.py')
        train, val = datasets.cls_train_dataset, datasets.cls_val_dataset
        train.data_root = val.data_root = str(scenes)
        self.train = build_labelled_dataset(train, key='train_dataset', max_samples=bank, seed=0)
        self.val = build_labelled_dataset(val, key='val_dataset')

    def score(self, model: nn.Module, **how: object) -> dict[str, float]:
        """kNN (k = 20, T = 0.07) and linear probe of what `extract_features` gives."""
        train, val = (
            extract_features(model, dataset, batch_size=100, **how)
            for dataset in (self.train, self.val)
        )
        data = (train.features, train.labels, val.features, val.labels)
        return {'kNN': knn_accuracy(*data), 'linear probe': linear_probe(*data, seed=0).top1}

    def score_teacher(self, student: nn.Module, name: str) -> dict[str, float]:
        """The same for the embedding of whole images by a student's teacher."""
        teacher = student.teachers[name]

        def embed(images: Tensor) -> Tensor:
            grid = tuple(size // student.cell for size in images.shape[2:])
            return teacher(images, CellMask.full(batch=len(images), grid=grid)).embedding

        return self.score(teacher, encode=embed, data_preprocessor=student.data_preprocessor)


def build_student(model: ConfigDict, checkpoint: Path | None, seed: int) -> nn.Module:
    """A model of the config, initialized with the seed, with weights if there are any."""
    torch.manual_seed(seed)
    network = MODELS.build(model)
    network.init_weights()
    if checkpoint is not None:
        network.load_state_dict(read_tensors(str(checkpoint)))
    return network.eval()
