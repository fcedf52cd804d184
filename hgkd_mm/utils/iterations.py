"""The same training for another number of images in an iteration."""

from __future__ import annotations

from mmengine.config import Config

_COUNTED = ('begin', 'end', 'T_max', 'milestones')


def scaled_iterations(config: Config, factor: float) -> dict[str, int | list[int]]:
    """Overrides that multiply what an iteration-based training counts in iterations.

    MMEngine's ``IterBasedTrainLoop`` counts forward passes, whatever their images and whether or
    not the optimizer steps after each.

    Args:
        config: The config.
        factor: Of the training's length, the intervals of validation and checkpoints, and the
            schedules that are not by epoch.

    Returns:
        Values by dotted config key, as ``--cfg-options`` takes them; none if the training counts
        epochs.
    """
    loop = config.get('train_cfg') or {}
    if 'max_iters' not in loop:
        return {}
    found = {f'train_cfg.{key}': loop.get(key) for key in ('max_iters', 'val_interval')}
    schedules = config.get('param_scheduler') or []
    listed = isinstance(schedules, (list, tuple))
    for index, schedule in enumerate(schedules if listed else [schedules]):
        if not schedule.get('by_epoch', True):
            start = f'param_scheduler.{index}' if listed else 'param_scheduler'
            found |= {f'{start}.{key}': schedule.get(key) for key in _COUNTED}
    checkpoint = (config.get('default_hooks') or {}).get('checkpoint') or {}
    if not checkpoint.get('by_epoch', True):
        found['default_hooks.checkpoint.interval'] = checkpoint.get('interval')
    scaled = {key: _times(value, factor) for key, value in found.items() if value is not None}
    return {key: value for key, value in scaled.items() if value != found[key]}


def _times(value: int | list[int], factor: float) -> int | list[int]:
    if isinstance(value, (list, tuple)):
        return [_times(item, factor) for item in value]
    # -1 stands for never
    return max(1, round(value * factor)) if value > 0 else value
