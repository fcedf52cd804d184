"""Stop before training or testing with other weights than those that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from hgkd_mm.evaluation.features import same_on_all_ranks
from hgkd_mm.utils.distributed import trained_model
from hgkd_mm.weights.fit import Fit, compare
from hgkd_mm.weights.pretrained import (
    PretrainedFile,
    compare_values,
    module_key,
    pretrained_files,
)
from hgkd_mm.weights.reading import CONTAINERS, CheckpointError, tensors_in, without_wrapper


class PretrainedWeightsError(CheckpointError):
    """A model does not start from the weights that its config names."""


class IncompleteCheckpointError(CheckpointError):
    """A checkpoint lacks weights of the model."""


# in mmengine's own registry, so that configs of every scope (mmpretrain, mmdet, mmseg) find it
@HOOKS.register_module()
class PretrainedReportHook(Hook):
    """Stop before the first step when a file of ``init_cfg`` did not fill its module.

    MMEngine loads what fits of ``init_cfg=dict(type='Pretrained', ...)`` and goes on with random
    weights where nothing does, with a warning in a long log. This hook logs a line for each such
    module: how many of its weights are those of the file, by name, shape and value. Values
    matter because some modules write into their weights after loading, such as mmpretrain's
    ``ResNet(zero_init_residual=True)`` whose ``init_cfg`` is a list. Names of the file that the
    module does not have are counted, and are no error.

    Runs that are resumed or start from ``load_from`` have other weights by then, and are not
    looked at. What converts a file's names or shapes while it loads is beyond this hook and needs
    ``allow_missing``.

    Args:
        allow_missing: True reports only. Patterns such as 'head.*' of names in the model allow
            these to come from elsewhere than the file.

    Raises:
        PretrainedWeightsError: Before training: a file cannot be read, holds nothing where
            MMEngine looks or under the prefix, or fewer than all weights are its.
    """

    priority = 'VERY_HIGH'

    def __init__(self, *, allow_missing: bool | Sequence[str] = False) -> None:
        if isinstance(allow_missing, str):
            raise ValueError(
                'PretrainedReportHook.allow_missing is True, False or a list of patterns such as '
                f"['head.*'], and not the text '{allow_missing}'."
            )
        self._allowed = ['*'] if allow_missing is True else allow_missing or []
        self._replaced = False

    def before_run(self, runner: Runner) -> None:
        """Read the files, ahead of MMEngine, whose own words for a missing one are fewer."""
        # Weights are initialized in training only, for which the optimizer is made by now.
        if not isinstance(runner.optim_wrapper, OptimWrapper):
            return
        try:
            with same_on_all_ranks():
                for files in pretrained_files(trained_model(runner)).values():
                    for file in files:
                        file.read()
        except (OSError, RuntimeError, ValueError) as error:
            raise PretrainedWeightsError(str(error)) from error

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Note that resuming or ``load_from`` replaced the weights."""
        self._replaced = True

    def before_train(self, runner: Runner) -> None:
        """Compare names, shapes and values, and report."""
        if self._replaced:
            runner.logger.info('Weights come from resume or load_from; init_cfg is not checked.')
            return
        model = trained_model(runner)
        files = pretrained_files(model)
        if not files:
            runner.logger.info('No init_cfg of the model names a file: it starts from random.')
        problems = []
        for name, fit in compare_values(model, files).items():
            sources = ', '.join(file.checkpoint for file in files[name])
            line = f'{module_key(name)} starts from {sources} with {fit.counts()}.'
            runner.logger.info(line)
            if not all(map(self._allows, fit.lacking)):
                problems.append(f'{line} {_advice(module_key(name), files[name][0], fit)}')
        with same_on_all_ranks():
            if problems:
                raise PretrainedWeightsError(problems[0])

    def _allows(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self._allowed)


# as above
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
        """Compare names and shapes."""
        found = without_wrapper(tensors_in(checkpoint, CONTAINERS[:1]))
        fit = compare(trained_model(runner).state_dict(), found)
        if fit.lacking:
            raise IncompleteCheckpointError(
                f'{runner.cfg.load_from} does not fit this config: it fills {fit.counts()}. Give '
                'the config that the checkpoint was trained with.'
            )


def _advice(key: str, file: PretrainedFile, fit: Fit) -> str:
    written = (
        ' Values that differ were written after loading: zero_init_residual=True with an init_cfg '
        'that is a list does so.'
    )
    return (
        f'Make the network that of the file ({key}: depth, settings of the stem, ...), or '
        f'change the file (config key {file.key}) or the part of it ({file.prefix_key}).'
        f'{written if fit.changed else ""} If it is meant so, give '
        "dict(type='PretrainedReportHook') allow_missing=True, or a list of the names' patterns."
    )
