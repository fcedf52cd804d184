"""Refuse to test weights that were never trained."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner


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
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        found = checkpoint.get('state_dict', checkpoint)
        shapes = {
            name.removeprefix('module.'): getattr(value, 'shape', None)
            for name, value in found.items()
        }
        # Files written by older versions of torch lack the counters of batch norms.
        wanted = {
            name: value.shape
            for name, value in model.state_dict().items()
            if not name.endswith('num_batches_tracked')
        }
        missing = [name for name in wanted if name not in shapes]
        other = [name for name in wanted if name in shapes and shapes[name] != wanted[name]]
        if missing or other:
            raise IncompleteCheckpointError(
                f'{runner.cfg.load_from} does not fit this config: of {len(wanted)} weights '
                f'{_examples("missing", missing)}{_examples("of another shape", other)}'
                'give the config that the checkpoint was trained with.'
            )


def _examples(what: str, names: list[str]) -> str:
    if not names:
        return ''
    first = ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
    return f'{len(names)} are {what} ({first}); '
