"""Refuse to test weights that were never trained."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from hgkd_mm.utils.weights_fit import compare, listed

from ..pretrained_file import tensors_in, without_wrapper
from .base import trained_model


class IncompleteCheckpointError(RuntimeError):
    """A checkpoint lacks weights of the model."""


# in mmengine's own registry, so that configs of every scope (mmpretrain, mmdet, mmseg) find it
@HOOKS.register_module()
class WholeCheckpointHook(Hook):
    """Stop when a checkpoint does not hold every weight of the model, in its shape.

    MMEngine loads what fits and goes on with random weights where nothing does, with a warning
    in the log: a backbone's checkpoint then tests as a poor detector. ``tools/test.py`` adds this
    hook. Unknown weights in the file are MMEngine's to report.

    Raises:
        IncompleteCheckpointError: While the checkpoint is loaded, before it is used.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare names and shapes.

        Args:
            runner: The runner.
            checkpoint: What was read from the file.
        """
        model = trained_model(runner)
        fit = compare(model.state_dict(), without_wrapper(tensors_in(checkpoint)))
        if fit.lacking:
            raise IncompleteCheckpointError(
                f'{runner.cfg.load_from} does not fit this config: of {fit.total} weights '
                f'{len(fit.missing)} are missing{listed(fit.missing)} and {len(fit.other_shape)} '
                f'have another shape{listed(fit.other_shape)}. Give the config that the checkpoint '
                'was trained with.'
            )
