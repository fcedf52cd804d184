"""One frozen feature vector per image of a labelled dataset."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from mmengine.dataset import DefaultSampler, default_collate
from mmengine.dist import all_gather, all_gather_object, get_world_size
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from hgkd_mm.models.outputs import TeacherOutput

from .rng import isolated_rng


class LabelledFeatures(NamedTuple):
    """Frozen features of a dataset, in the dataset's order, on the CPU.

    Attributes:
        features: (N, D) float32, not normalised.
        labels: (N,) int64 class indices.
    """

    features: Tensor
    labels: Tensor


def pool_features(output: Any) -> Tensor:
    """Reduce what a network says of a batch to one vector per image.

    Args:
        output: A ``TeacherOutput`` (its ``embedding`` counts), a (B, C, H, W) map
            (global average pool over all positions), a (B, D) matrix (as it is),
            or a tuple or list of maps, of which the last counts.

    Returns:
        (B, D) features.

    Raises:
        ValueError: The output is none of these.
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

    The model is in eval mode meanwhile and every submodule gets its own mode
    back; random generators are left untouched. In a distributed run each rank
    encodes its part, and every rank receives all features, in order.

    Args:
        model: An MMEngine model with ``extract_feat`` (``HGKD``, mmpretrain's
            classifiers), a teacher, or any module that maps images to something
            ``pool_features`` accepts.
        dataset: Items as mmpretrain's ``PackInputs`` makes them, of one image
            size: ``dict(inputs=(3, H, W) tensor, data_samples=DataSample)`` with
            a ``gt_label``.
        encode: Maps (B, 3, H, W) normalised images to the output to pool, when
            it is neither ``model.extract_feat`` nor ``model`` itself.
        data_preprocessor: Normalises a batch. Default: the model's own; needed
            for modules that have none, such as a teacher or a bare backbone.
        device: Where the images go. Default: where the model's first parameter
            is, or the CPU.
        batch_size: Images per forward pass and rank.
        num_workers: Loading processes per rank.

    Returns:
        ``LabelledFeatures`` of all N images.

    Raises:
        ValueError: The dataset is empty or unlabelled, a preprocessor is
            missing, or the output can't be pooled.
        RuntimeError: In a distributed run, on every rank: one of them failed.
    """
    size = len(dataset)  # type: ignore[arg-type]
    if size == 0:
        raise ValueError('The dataset to take features from is empty. Check its data_root.')
    if encode is None:
        encode = model.extract_feat if isinstance(model, BaseModel) else model
    if data_preprocessor is None:
        if not isinstance(model, BaseModel):
            raise ValueError(
                f'{type(model).__name__} does not say how its images are normalised. Pass '
                '`data_preprocessor`, for example the one of the student it teaches.'
            )
        data_preprocessor = model.data_preprocessor
    if device is None:
        parameter = next(model.parameters(), None)
        device = 'cpu' if parameter is None else parameter.device

    features, labels = [], []
    with same_on_all_ranks(), torch.no_grad(), eval_mode(model), isolated_rng():
        for batch in _ordered_loader(dataset, batch_size, num_workers):
            images = data_preprocessor(batch, False)['inputs'].to(device)
            features.append(pool_features(encode(images)).float().cpu())
            labels.append(_class_indices(batch['data_samples']))
    return LabelledFeatures(
        _gather_in_order(torch.cat(features), size), _gather_in_order(torch.cat(labels), size)
    )


@contextmanager
def same_on_all_ranks() -> Iterator[None]:
    """Ends a block that talks to no other rank with an error on all ranks if one has it.

    Without it the others would wait for the results of the one that failed.

    Raises:
        RuntimeError: On every rank: what went wrong, and where. A process alone has
            its own error.
    """
    problem = None
    try:
        yield
    except Exception as error:
        problem = error
    if get_world_size() == 1:
        if problem is not None:
            raise problem
        return
    told = all_gather_object(problem and f'{type(problem).__name__}: {problem}')
    if any(told):
        found = '; '.join(f'rank {rank}: {text}' for rank, text in enumerate(told) if text)
        raise RuntimeError(found) from problem


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode for a block; each submodule gets its own mode back."""
    # model.train(True) afterwards would wake up layers that were frozen on purpose.
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _ordered_loader(dataset: Dataset, batch_size: int, num_workers: int) -> DataLoader:
    # Rounded up, so that every rank has equally many images and plain tensors can be gathered.
    sampler = DefaultSampler(dataset, shuffle=False, seed=0, round_up=True)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=default_collate,
    )


def _class_indices(samples: Sequence[Any]) -> Tensor:
    labels = [sample.get('gt_label') for sample in samples]
    if any(label is None for label in labels):
        raise ValueError(
            'An image of the dataset has no gt_label. Use a labelled dataset (with_label=True) '
            'and end its pipeline with PackInputs.'
        )
    if any(label.numel() != 1 for label in labels):
        raise ValueError('An image has several labels; kNN and linear probe need exactly one.')
    return torch.cat([label.reshape(1).long().cpu() for label in labels])


def _gather_in_order(part: Tensor, size: int) -> Tensor:
    # DefaultSampler gives rank r the images r, r + world, r + 2 * world, ...
    return torch.stack(all_gather(part), dim=1).flatten(0, 1)[:size]
