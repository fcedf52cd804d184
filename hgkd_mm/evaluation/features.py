"""Frozen features of labelled datasets; model modes and random states stay as they were."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dataset import DefaultSampler, default_collate
from mmengine.dist import all_gather, all_gather_object, get_world_size
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from hgkd_mm.models.outputs import TeacherOutput


class LabelledFeatures(NamedTuple):
    """Frozen features of a dataset, in the dataset's order, on the CPU."""

    features: Tensor  # (N, D) float32, not normalized
    labels: Tensor  # (N,) int64 class indices


def pool_features(output: Any) -> Tensor:
    """(B, D) features from a network's output.

    Args:
        output: a ``TeacherOutput`` (its ``embedding``), a (B, C, H, W) map (averaged over
            positions), a (B, D) matrix, or a tuple or list of maps, of which the last is taken.
    """
    if isinstance(output, TeacherOutput):
        output = output.embedding
    if isinstance(output, tuple | list) and output:
        output = output[-1]
    if isinstance(output, Tensor) and output.dim() == 4:
        return output.mean((2, 3))
    if isinstance(output, Tensor) and output.dim() == 2:
        return output
    seen = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise ValueError(
        f'Features can be pooled from a (B, C, H, W) map or a (B, D) matrix, but the network '
        f'returned {seen}. Pass `encode` a function that maps images to one of the two.'
    )


def pool_tokens(output: TeacherOutput) -> Tensor:
    """Mean of a teacher's valid tokens, (B, D); the alternative to its ``embedding``."""
    valid = output.valid[:, None]
    # A where, not a product: hidden tokens may hold anything.
    total = torch.where(valid, output.tokens, 0.0).sum((2, 3))
    return total / valid.sum((2, 3)).clamp(min=1)


def extract_features(
    model: nn.Module,
    dataset: Dataset,
    *,
    encode: Callable[[Tensor], Any] | None = None,
    data_preprocessor: nn.Module | None = None,
    device: torch.device | str | None = None,
    batch_size: int = 64,
    num_workers: int = 0,
) -> LabelledFeatures:
    """Features of every image of a dataset from a frozen network, without a mask.

    In a distributed run each rank encodes its part, and every rank receives all features.

    Args:
        model: an MMEngine model with ``extract_feat`` (``HGKD``, mmpretrain's classifiers), a
            teacher, or any module that maps images to something `pool_features` accepts.
        dataset: items from mmpretrain's ``PackInputs``, of one image size, with a ``gt_label``.
        encode: maps (B, 3, H, W) normalized images to the output to pool; by default
            ``model.extract_feat``, or the model itself.
        data_preprocessor: normalizes a batch; by default the model's own. For a teacher, pass that
            of its student.
        device: of the images; by default that of the model's first parameter.
        batch_size: images per forward pass and rank.
        num_workers: loading processes per rank.

    Raises:
        ValueError: the dataset is unlabelled, or the output can't be pooled.
        RuntimeError: in a distributed run, on every rank: one of them failed.
    """
    if encode is None:
        encode = model.extract_feat if isinstance(model, BaseModel) else model
    if data_preprocessor is None:
        data_preprocessor = model.data_preprocessor
    if device is None:
        device = next((parameter.device for parameter in model.parameters()), 'cpu')

    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        # Rounded up, so that every rank has equally many images and tensors can be gathered.
        sampler=DefaultSampler(dataset, shuffle=False, seed=0, round_up=True),
        num_workers=num_workers,
        collate_fn=default_collate,
    )
    features, labels = [], []
    with same_on_all_ranks(), torch.no_grad(), eval_mode(model), isolated_rng():
        for batch in loader:
            images = data_preprocessor(batch, False)['inputs'].to(device)
            features.append(pool_features(encode(images)).float().cpu())
            labels.append(_class_indices(batch['data_samples']))
    return LabelledFeatures(
        *(_gather_in_order(torch.cat(part), len(dataset)) for part in (features, labels))
    )


@contextmanager
def same_on_all_ranks() -> Iterator[None]:
    """Raises an error of a block that does not communicate on all ranks, as a RuntimeError.

    The other ranks would wait for the one that failed. A single process raises the error itself.
    """
    problem = None
    try:
        yield
    except Exception as error:
        if get_world_size() == 1:
            raise
        problem = error
    messages = all_gather_object(problem and f'{type(problem).__name__}: {problem}')
    failed = [f'rank {rank}: {text}' for rank, text in enumerate(messages) if text]
    if failed:
        raise RuntimeError('; '.join(failed)) from problem


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Puts a model in eval mode for a block; each submodule gets its own mode back."""
    # model.train(True) afterwards would change layers that were frozen on purpose.
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def isolated_rng(seed: int = 0) -> Iterator[None]:
    """Seeds the generators of Python, NumPy and torch for a block; their states come back after.

    Where CUDA is in use, that includes the generator of the current device.
    """
    # Touching CUDA before anyone else does would open a context on this device.
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            random.seed(seed)
            np.random.seed(seed)
            # torch.manual_seed would also re-seed the CUDA devices that are not restored.
            torch.default_generator.manual_seed(seed)
            if devices:
                torch.cuda.manual_seed(seed)
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def _class_indices(samples: Sequence[Any]) -> Tensor:
    labels = [sample.get('gt_label') for sample in samples]
    if any(label is None for label in labels):
        raise ValueError(
            'An image of the dataset has no gt_label. Use a labelled dataset (with_label=True) '
            'and end its pipeline with PackInputs.'
        )
    return torch.cat([label.reshape(1).long().cpu() for label in labels])


def _gather_in_order(part: Tensor, size: int) -> Tensor:
    # DefaultSampler gives rank r the images r, r + world, r + 2 * world, ...
    return torch.stack(all_gather(part), dim=1).flatten(0, 1)[:size]
