"""How good frozen features are: kNN and linear probe, for students and teachers alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from mmengine.config import ConfigDict
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from hgkd_mm.evaluation import (
    build_labelled_dataset,
    extract_features,
    knn_accuracy,
    linear_probe,
)
from hgkd_mm.sparse import CellMask
from hgkd_mm.weights.reading import read_tensors


@dataclass
class Score:
    """Top-1 of frozen features on the validation images, percent."""

    knn: float
    linear: float


class FrozenEvaluation:
    """Labelled images, and how features of them are scored.

    Args:
        train_dataset: config of the labelled images to learn from.
        val_dataset: config of the images to score.
        max_train_samples: only so many of the first, to save time.
        seed: of the choice, and of the probe's held-out part.
    """

    def __init__(
        self, *, train_dataset: dict, val_dataset: dict, max_train_samples: int, seed: int = 0
    ) -> None:
        self.seed = seed
        self.train = build_labelled_dataset(
            train_dataset, key='train_dataset', max_samples=max_train_samples, seed=0
        )
        self.val = build_labelled_dataset(val_dataset, key='val_dataset')
        self.classes = len(self.val.CLASSES)

    def score(self, model: nn.Module) -> Score:
        """kNN (k = 20, T = 0.07) and linear probe of a model's pooled features."""
        return self._score(model)

    def score_teacher(self, student: nn.Module, name: str) -> Score:
        """The same of the embedding that a student's teacher has of whole images."""
        teacher = student.teachers[name]

        def embed(images: Tensor) -> Tensor:
            grid = tuple(size // student.cell for size in images.shape[2:])
            return teacher(images, CellMask.full(batch=len(images), grid=grid)).embedding

        return self._score(teacher, encode=embed, data_preprocessor=student.data_preprocessor)

    def _score(self, model: nn.Module, **how: object) -> Score:
        train, val = (
            extract_features(model, dataset, batch_size=100, **how)
            for dataset in (self.train, self.val)
        )
        data = (train.features, train.labels, val.features, val.labels)
        return Score(knn=knn_accuracy(*data), linear=linear_probe(*data, seed=self.seed).top1)


def build_student(model: ConfigDict, checkpoint: str | None, seed: int) -> nn.Module:
    """A model of the config, initialised with the seed, with weights if there are any."""
    torch.manual_seed(seed)
    network = MODELS.build(model)
    network.init_weights()
    if checkpoint is not None:
        network.load_state_dict(read_tensors(checkpoint))
    return network.eval()
