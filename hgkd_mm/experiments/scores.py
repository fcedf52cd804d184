"""Tables of results: printed, joined over seeds, and written as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmpretrain.registry import MODELS
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from hgkd_mm.benchmark import versions
from hgkd_mm.evaluation import build_labelled_dataset, extract_features, knn_accuracy, linear_probe
from hgkd_mm.sparse import CellMask
from hgkd_mm.weights.reading import read_tensors

from . import CONFIGS

Scores = Mapping[str, Mapping[str, float]]  # row to column to percent


def over_seeds(tables: Sequence[Scores]) -> dict[str, dict[str, list[float]]]:
    """Row to column to the values of some seeds, whose tables have the same rows and columns."""
    return {
        row: {column: [table[row][column] for table in tables] for column in columns}
        for row, columns in tables[0].items()
    }


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation, 0 for a single value."""
    return mean(values), stdev(values) if len(values) > 1 else 0.0


def print_table(title: str, tables: Sequence[Scores], *, head: str) -> None:
    """Prints mean and standard deviation over some seeds; ``head`` is above the row names."""
    shown = Table(title=title)
    shown.add_column(head)
    for column in next(iter(tables[0].values())):
        shown.add_column(column, justify='right')
    figure = '{:.1f} ± {:.1f}' if len(tables) > 1 else '{:.1f}'
    for row, columns in over_seeds(tables).items():
        shown.add_row(row, *(figure.format(*spread(values)) for values in columns.values()))
    Console(width=120).print(shown)


def write_summary(path: Path, tables: Sequence[Scores], **facts: object) -> None:
    """Writes means, deviations and single values of some seeds, with versions, as JSON."""
    scores = {
        row: {
            column: dict(zip(('mean', 'std'), spread(values), strict=True), values=values)
            for column, values in columns.items()
        }
        for row, columns in over_seeds(tables).items()
    }
    record = {'scores': scores, **facts, 'versions': versions(get_device())}
    path.write_text(json.dumps(record, indent=2, default=str))


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
