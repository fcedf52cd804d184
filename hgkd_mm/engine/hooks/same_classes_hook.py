"""Refuse a validation whose classes have other numbers than those of training."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from hgkd_mm.evaluation import check_same_classes


# in mmengine's own registry, so that configs of every scope find it
@HOOKS.register_module()
class SameClassesHook(Hook):
    """Stop before the first step when validation numbers its classes otherwise than training.

    Each of mmpretrain's data sets numbers the class folders that it finds, so that one which is
    missing from a split shifts all that follow. ``tools/train.py`` adds this hook to trainings
    of classifiers; `LabelledFolder` numbers every split alike.

    Raises:
        ValueError: Both data sets name their classes, and the names differ.
    """

    def before_train(self, runner: Runner) -> None:
        """Compare the data sets of training and validation."""
        if runner.val_loop is not None:
            check_same_classes(runner.train_dataloader.dataset, runner.val_loop.dataloader.dataset)
