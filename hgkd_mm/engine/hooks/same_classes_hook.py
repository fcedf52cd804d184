"""Refuse a validation whose classes have other numbers than those of training."""

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from hgkd_mm.evaluation import check_same_classes


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
