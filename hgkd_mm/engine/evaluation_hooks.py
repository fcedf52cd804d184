"""kNN accuracy of the student while it trains, and the same class numbers in both splits."""

import time
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch.utils.data import Dataset

from hgkd_mm.evaluation import (
    build_labelled_dataset,
    check_same_classes,
    extract_features,
    isolated_rng,
    knn_accuracy,
)
from hgkd_mm.utils.distributed import trained_model


@HOOKS.register_module()
class KNNEvalHook(Hook):
    """Log the kNN top-1 of the frozen student on a labelled folder every N epochs.

    The features are the global average pool of the last map of ``model.extract_feat``, dense and
    in eval mode. The figure, in percent, goes to the log, the visualizer and the message hub as
    ``knn/top1``; its step is the iteration, as for the losses. Modes and random states are as
    before. In a distributed run the images are shared out over the ranks.

    The checkpoint of the same epoch is written first, and an error while evaluating (a broken
    image) is logged on all ranks and does not end training, but for ``initial``.

    Args:
        train_dataset: Config of a labelled mmpretrain dataset, whose images vote.
            Its pipeline ends with ``PackInputs`` and yields one image size.
        val_dataset: The same for the images that are classified.
        interval: Epochs (or iterations) between evaluations.
        by_epoch: Whether ``interval`` counts epochs or iterations.
        initial: Also evaluate before the first step.
        last: Also evaluate after the last epoch (or iteration).
        k: Neighbours that vote.
        temperature: Of the votes.
        batch_size: Images per forward pass and rank.
        num_workers: Loading processes per rank.
        max_train_samples: Vote with a random choice of this many images. Default:
            all. ImageNet-1K in float32 at width 2048 takes 10 GB.

    Raises:
        ValueError: A number is out of range; at the start of the run: a dataset
            is empty, unlabelled, of one class, or smaller than k.
    """

    priority = 'LOWEST'  # after CheckpointHook

    def __init__(
        self,
        *,
        train_dataset: dict[str, Any] | Dataset,
        val_dataset: dict[str, Any] | Dataset,
        interval: int = 10,
        by_epoch: bool = True,
        initial: bool = False,
        last: bool = True,
        k: int = 20,
        temperature: float = 0.07,
        batch_size: int = 64,
        num_workers: int = 2,
        max_train_samples: int | None = None,
    ) -> None:
        if interval < 1:
            raise ValueError(f'KNNEvalHook.interval must be at least 1, but is {interval}.')
        if temperature <= 0:
            raise ValueError(f'KNNEvalHook.temperature must be positive, but is {temperature}.')
        self.train_dataset = train_dataset
        self.val_dataset = val_dataset
        self.interval = interval
        self.by_epoch = by_epoch
        self.initial = initial
        self.last = last
        self.k = k
        self.temperature = temperature
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.max_train_samples = max_train_samples

    def before_run(self, runner: Runner) -> None:
        """Build and check the datasets, so that a wrong folder costs no training."""
        # Weights are initialized after this, and must not depend on what is loaded here.
        with isolated_rng():
            self.train_dataset = build_labelled_dataset(
                self.train_dataset,
                key='KNNEvalHook.train_dataset',
                max_samples=self.max_train_samples,
            )
            self.val_dataset = build_labelled_dataset(
                self.val_dataset, key='KNNEvalHook.val_dataset'
            )
        check_same_classes(self.train_dataset, self.val_dataset)
        size = len(self.train_dataset)  # type: ignore[arg-type]
        if not 1 <= self.k <= size:
            raise ValueError(
                f'KNNEvalHook.k={self.k} neighbours are to vote, but train_dataset has {size} '
                f'images. Set k between 1 and {size}, or give it more images.'
            )

    def before_train(self, runner: Runner) -> None:
        """Evaluate the weights that training starts from, if asked for."""
        if self.initial:
            self._evaluate(runner, epoch=runner.epoch, iteration=runner.iter)

    def after_train_epoch(self, runner: Runner) -> None:
        """Evaluate every ``interval`` epochs and after the last, if epochs count."""
        last = self.last and self.is_last_train_epoch(runner)
        if self.by_epoch and (last or self.every_n_epochs(runner, self.interval)):
            self._try(runner, epoch=runner.epoch + 1, iteration=runner.iter)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Evaluate every ``interval`` iterations and after the last, if iterations count."""
        last = self.last and self.is_last_train_iter(runner)
        if not self.by_epoch and (last or self.every_n_train_iters(runner, self.interval)):
            self._try(runner, epoch=runner.epoch, iteration=runner.iter + 1)

    def _try(self, runner: Runner, *, epoch: int, iteration: int) -> None:
        try:
            self._evaluate(runner, epoch=epoch, iteration=iteration)
        except Exception as error:  # images and their files can be broken in any way
            runner.logger.error(
                f'There is no knn/top1 of iteration {iteration}, and training goes on: '
                f'{type(error).__name__}: {error} (KNNEvalHook.train_dataset or val_dataset).'
            )

    def _evaluate(self, runner: Runner, *, epoch: int, iteration: int) -> None:
        model = trained_model(runner)
        device = next(model.parameters()).device
        start = time.perf_counter()
        train, val = (
            extract_features(
                model, dataset, batch_size=self.batch_size, num_workers=self.num_workers
            )
            for dataset in (self.train_dataset, self.val_dataset)
        )
        top1 = knn_accuracy(
            train.features.to(device),
            train.labels.to(device),
            val.features.to(device),
            val.labels.to(device),
            k=self.k,
            temperature=self.temperature,
        )
        if self.by_epoch:
            progress = f'Epoch(knn) [{epoch}/{runner.max_epochs}]'
        else:
            progress = f'Iter(knn) [{iteration}/{runner.max_iters}]'
        runner.logger.info(
            f'{progress}  knn/top1: {top1:.2f}  '
            f'(k={self.k}, {len(train.labels)} training and {len(val.labels)} validation images, '
            f'{time.perf_counter() - start:.1f} s)'
        )
        runner.message_hub.update_scalar('knn/top1', top1)
        runner.visualizer.add_scalar('knn/top1', top1, step=iteration)


class OtherClassesError(RuntimeError):
    """Validation numbers its classes otherwise than training."""


@HOOKS.register_module()
class SameClassesHook(Hook):
    """Stop before the first step when validation numbers its classes otherwise than training.

    Each of mmpretrain's data sets numbers the class folders that it finds, so that one which is
    missing from a split shifts all that follow. ``tools/train.py`` adds this hook to trainings
    of mmpretrain that validate; `LabelledFolder` numbers every split alike.

    Raises:
        OtherClassesError: Both data sets name their classes, and they differ.
    """

    def before_train(self, runner: Runner) -> None:
        """Compare the data sets of training and validation."""
        if runner.val_loop is None:
            return
        keys = 'train_dataloader.dataset', 'val_dataloader.dataset'
        datasets = runner.train_dataloader.dataset, runner.val_loop.dataloader.dataset
        try:
            check_same_classes(*datasets, keys=keys)
        except ValueError as error:
            raise OtherClassesError(str(error)) from error
