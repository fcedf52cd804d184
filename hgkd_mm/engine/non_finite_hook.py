"""Stop a run whose loss or weights are no longer numbers."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_rank
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import Tensor, nn

from hgkd_mm.utils.distributed import trained_model


class NonFiniteError(RuntimeError):
    """A loss term or a weight became NaN or infinite."""


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Stop all ranks, with a sentence, when a loss or a weight is NaN or infinite.

    Every iteration is looked at; the ranks compare every ``interval`` iterations and before each
    checkpoint, so that none waits for one that has stopped. Weights are looked at before each
    checkpoint as well, since a step with a finite loss can break them. All this runs ahead of
    ``CheckpointHook``, which deletes an old checkpoint before it writes the new one, so the last
    good checkpoint stays.

    ``HGKD`` refuses a bad loss by itself, before the step; this hook serves any model.

    Args:
        interval: Iterations between two comparisons.

    Raises:
        ValueError: ``interval`` is less than 1.
        NonFiniteError: During the run, on every rank.
    """

    priority = 'ABOVE_NORMAL'

    def __init__(self, *, interval: int = 50) -> None:
        if interval < 1:
            raise ValueError(f'NonFiniteLossHook.interval must be at least 1, but is {interval}.')
        self.interval = interval
        # Loss name -> iteration and value, where it was bad for the first time.
        self._first_bad: dict[str, tuple[int, float]] = {}
        self._iteration = 0

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Note bad losses; check when it is time, or a checkpoint follows."""
        self._iteration = runner.iter + 1
        for name, value in (outputs or {}).items():
            # What MMEngine sums up and differentiates is what has 'loss' in its name.
            # Reading them costs no wait: RuntimeInfoHook has just read every one for the log.
            if 'loss' in name:
                number = torch.as_tensor(value).detach().float().mean().item()
                if not math.isfinite(number):
                    self._first_bad.setdefault(name, (self._iteration, number))
        checkpoint_follows = any(
            other.every_n_train_iters(runner, other.interval, other.save_begin)
            or (other.save_last and self.is_last_train_iter(runner))
            for other in runner.hooks
            if isinstance(other, CheckpointHook) and not other.by_epoch
        )
        if checkpoint_follows or self.every_n_train_iters(runner, self.interval):
            self._check(runner, weights=checkpoint_follows)

    def after_train_epoch(self, runner: Runner) -> None:
        """Check losses and weights before the epoch's checkpoint is written."""
        self._check(runner, weights=True)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Last guard, for checkpoints that are not written at a regular time."""
        name = _first_broken(checkpoint['state_dict'], trained_model(runner))
        if name is not None:
            raise NonFiniteError(
                f'The checkpoint was not written: {name} in it holds NaN or Inf (rank '
                f'{get_rank()}). {_advice(runner)}'
            )

    def _check(self, runner: Runner, *, weights: bool) -> None:
        # The total is bad whenever a term is: name the terms if there are any.
        terms = {k: v for k, v in self._first_bad.items() if k != 'loss'} or self._first_bad
        problems = [f'{name} = {value} at iteration {i}' for name, (i, value) in terms.items()]
        if weights:
            model = trained_model(runner)
            name = _first_broken(model.state_dict(), model)
            if name is not None:
                problems.append(f'{name} holds NaN or Inf after iteration {self._iteration}')
        by_rank = all_gather_object(problems)
        found = '; '.join(f'rank {r}: {", ".join(p)}' for r, p in enumerate(by_rank) if p)
        if found:
            raise NonFiniteError(f'Training stopped. On {found}. {_advice(runner)}')


def _first_broken(state: Mapping[str, Any], model: nn.Module) -> str | None:
    tensors = {
        name: tensor
        for name, tensor in state.items()
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.numel()
    }
    # Some models keep attention masks as buffers, which hold minus infinity.
    masks = {
        name for name, _ in model.named_buffers() if f'_{name.split(".")[-1]}'.endswith('_mask')
    }
    broken = [
        (tensor.isnan() | tensor.isposinf() if name in masks else ~tensor.isfinite()).any()
        for name, tensor in tensors.items()
    ]
    # one number for the host to wait for
    flags = torch.stack(broken).tolist() if broken else []
    return next((name for name, flag in zip(tensors, flags, strict=True) if flag), None)


def _advice(runner: Runner) -> str:
    return (
        'Lower the learning rate (optim_wrapper.optimizer.lr), lengthen the warm-up or clip '
        'gradients (optim_wrapper.clip_grad), then continue with --resume from the last '
        f'checkpoint in {runner.work_dir}, which was written before this happened.'
    )
