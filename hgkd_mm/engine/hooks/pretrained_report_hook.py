"""Say how many weights training starts from, and stop if it is fewer than all."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from hgkd_mm.utils.files import is_remote

from ..pretrained import (
    PretrainedPart,
    compare_part,
    expected_values,
    pretrained_parts,
    read_part,
)
from .base import trained_model


class PretrainedWeightsError(RuntimeError):
    """A model does not start from the weights that its config names."""


# in mmengine's own registry, so that configs of every scope (mmpretrain, mmdet, mmseg) find it
@HOOKS.register_module()
class PretrainedReportHook(Hook):
    """Stop before the first step when a file of ``init_cfg`` did not fill its module.

    MMEngine loads what fits of ``init_cfg=dict(type='Pretrained', ...)`` and goes on with random
    weights where nothing does, with a warning in a long log. This hook logs a line for each such
    module: how many of its weights are those of the file, by name, shape and value. Values
    matter because some modules write into their weights after loading, such as mmpretrain's
    ``ResNet(zero_init_residual=True)`` whose ``init_cfg`` is a list. Counters of batch norms
    (``num_batches_tracked``) are no weights. Names of the file that the module does not have
    are counted, and are no error.

    Runs that are resumed or start from ``load_from`` have other weights by then, and are not
    looked at. The main process reads local files, once more than MMEngine does; what converts a
    file's names or shapes while it loads is beyond this hook and needs ``allow_missing``.

    Args:
        allow_missing: True reports only. Patterns such as 'head.*' of names in the model allow
            these to come from elsewhere than the file.

    Raises:
        PretrainedWeightsError: On every rank, before training: there is no such file, MMEngine
            does not read its kind, it holds nothing where MMEngine looks or under the prefix, or
            fewer than all weights are the file's.
    """

    priority = 'VERY_HIGH'

    def __init__(self, *, allow_missing: bool | Sequence[str] = False) -> None:
        if isinstance(allow_missing, str):
            raise ValueError(
                'PretrainedReportHook.allow_missing is True, False or a list of patterns such as '
                f"['head.*'], and not the text '{allow_missing}'."
            )
        self.allow_missing = allow_missing
        self._parts: list[PretrainedPart] = []
        self._files: list[dict[str, Tensor]] = []
        self._replaced = False

    def allows(self, name: str) -> bool:
        """Whether a weight may come from elsewhere than the file.

        Args:
            name: Its name in the whole model.
        """
        if isinstance(self.allow_missing, bool):
            return self.allow_missing
        return any(fnmatchcase(name, pattern) for pattern in self.allow_missing)

    def before_run(self, runner: Runner) -> None:
        """Read the files, ahead of MMEngine, whose own words for a missing one are fewer."""
        # Weights are initialised in training only, for which the optimizer is made by now.
        if not isinstance(runner.optim_wrapper, OptimWrapper):
            return
        model = trained_model(runner)
        self._parts = list(pretrained_parts(model))
        problem = ''
        try:
            self._files = [_read(part) for part in self._parts]
        except (OSError, RuntimeError, ValueError) as error:
            problem = str(error)
        _stop_together(problem)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Note that resuming or ``load_from`` replaced the weights."""
        self._replaced = True

    def before_train(self, runner: Runner) -> None:
        """Compare names, shapes and values, and report."""
        parts, files = self._parts, self._files
        self._parts, self._files = [], []
        if self._replaced:
            runner.logger.info('Weights come from resume or load_from; init_cfg is not checked.')
            return
        if not parts:
            runner.logger.info('No init_cfg of the model names a file: it starts from random.')
        problem = ''
        if is_main_process():
            problem = self._report(runner, parts, files)
        _stop_together(problem)

    def _report(
        self, runner: Runner, parts: list[PretrainedPart], files: list[dict[str, Tensor]]
    ) -> str:
        """Logs a line a module; returns the sentence of the first that has too few, or ''."""
        expected = expected_values(parts, files)
        problem = ''
        for part, weights in zip(parts, files, strict=True):
            fit = compare_part(part, weights, expected)
            sources = ', '.join(file.checkpoint for file in part.files)
            line = f'{part.key} starts from {sources} with {fit.counts()}'
            runner.logger.info(f'{line}.')
            refused = [name for name in fit.lacking if not self.allows(name)]
            if refused and not problem:
                problem = f'{line}. {_advice(part, changed=bool(fit.changed))}'
        return problem


def _read(part: PretrainedPart) -> dict[str, Tensor]:
    # MMEngine's readers of web addresses wait for all ranks.
    shared = any(is_remote(file.checkpoint) for file in part.files)
    return read_part(part) if shared or is_main_process() else {}


def _stop_together(problem: str) -> None:
    """Raises on every rank what the main process found, so that none waits for it."""
    problems = [problem]
    broadcast_object_list(problems)
    if problem or problems[0]:
        raise PretrainedWeightsError(problems[0] or problem)


def _advice(part: PretrainedPart, *, changed: bool) -> str:
    written = (
        'Values that differ were written after loading: zero_init_residual=True with an init_cfg '
        'that is a list does so. '
        if changed
        else ''
    )
    file = part.files[0]
    return (
        f'Training was not started. Make the network that of the file ({part.key}: depth, '
        f'settings of the stem, ...), or change the file (config key {file.key}) or the part of '
        f'it ({file.prefix_key}). '
        f"{written}If it is meant so, give dict(type='PretrainedReportHook') "
        "allow_missing=True, or a list of the names' patterns."
    )
