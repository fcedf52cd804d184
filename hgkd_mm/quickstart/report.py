"""What the quickstart leaves behind: a table, summary.json, a picture."""

from __future__ import annotations

import json
from pathlib import Path

import mmcv
import mmengine
import mmpretrain
import torch
import torchvision
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.utils import get_git_hash
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from hgkd_mm import __version__
from hgkd_mm.benchmark import versions
from hgkd_mm.inspect import denormalize, draw_quickstart_figure, read_scalars
from hgkd_mm.sparse import CellMask, sparsify

from .evaluation import Score


def print_table(scores: dict[str, Score], classes: int) -> None:
    """Prints kNN and linear-probe top-1 of every row."""
    table = Table(title=f'Frozen features on Scenes, top-1 in % (chance {100 / classes:.1f})')
    table.add_column('features of')
    table.add_column('kNN', justify='right')
    table.add_column('linear probe', justify='right')
    for name, score in scores.items():
        table.add_row(name, f'{score.knn:.1f}', f'{score.linear:.1f}')
    Console().print(table)


def last_losses(work_dir: Path) -> dict[str, float]:
    """The last logged value of each loss of a run."""
    scalars = read_scalars(work_dir)
    return {name: curve.values[-1] for name, curve in scalars.items() if 'loss' in name}


def write_summary(
    path: Path, scores: dict[str, Score], config: Config, seconds: dict[str, float], **facts: object
) -> None:
    """Writes all figures, with what they were made with, as JSON.

    Args:
        path: file to write.
        scores: rows of the table.
        config: config of the H-GKD run.
        seconds: time of each stage.
        facts: anything else, such as the seed and the data folder.
    """
    record = {
        'scores': {name: vars(score) for name, score in scores.items()},
        'seconds': {name: round(value, 1) for name, value in seconds.items()},
        'versions': {**versions('cpu'), **_packages()},
        'config': config.to_dict(),
        **facts,
    }
    path.write_text(json.dumps(record, indent=2, default=str))


def _packages() -> dict[str, str]:
    """Versions of what the figures depend on beside torch."""
    found = {'hgkd_mm': __version__, 'commit': get_git_hash(digits=12)}
    for module in (mmengine, mmcv, mmpretrain, torchvision):
        found[module.__name__] = module.__version__
    return found


def draw(
    path: Path,
    *,
    student: nn.Module,
    dataset: object,
    runs: dict[str, Path],
    count: int = 5,
) -> None:
    """Images, masks, teacher and student features (PCA to RGB), and loss curves.

    Features are what L_feat compares, here of the whole images: the teacher's tokens as it
    normalises them, and the student's decoded map, projected into the same space.

    Args:
        path: PNG to write.
        student: trained HGKD with a ``feat`` head on teacher ``mim``.
        dataset: labelled dataset whose images are shown.
        runs: name to work directory, for the loss curves.
        count: number of images, of different classes.
    """
    step = max(1, len(dataset) // count)
    batch = default_collate([dataset[i * step + step // 2] for i in range(count)])
    images: Tensor = student.data_preprocessor(batch, False)['inputs']
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        mask = student.draw_mask(images)
        whole = CellMask.full(batch=mask.batch, grid=mask.grid)
        teacher = student.teachers['mim'](images, whole)
        maps = student.backbone(sparsify(images, whole, engine=student.engine))
        features = student.heads['feat'].project(student.neck(maps))
        targets = student.heads['feat'].target(teacher)
    curves = {}
    for name, work_dir in runs.items():
        for key, curve in read_scalars(work_dir).items():
            if key.startswith('loss_'):
                curves[f'{name}: {key.removeprefix("loss_")}'] = curve
    draw_quickstart_figure(
        images=denormalize(
            images,
            student.data_preprocessor.mean.flatten(),
            student.data_preprocessor.std.flatten(),
        ),
        visible=mask.visible,
        teacher_tokens=targets,
        student_features=features,
        curves=curves,
        path=path,
        title='H-GKD on Scenes: what the student sees, and what it makes of whole images',
    )
