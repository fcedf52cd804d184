"""A training that ends by the clock. Imports MMEngine."""

from __future__ import annotations

import time

from mmengine.hooks import Hook
from mmengine.runner import Runner


class TimeIsUpError(Exception):
    """Leaves the training loop, which knows no end but that of its epochs."""


class TimeLimitHook(Hook):
    """Notes what each step took, and ends the training in time; runs after all other hooks.

    Args:
        end: when to end, by ``time.monotonic``.
        steps: most steps after the warm-up.
        warm_up: steps that are not noted.

    Attributes:
        seconds, waiting: of each step, in all and for data, as ``IterTimerHook`` measures them.
        warm: when the warm-up was over, by ``time.monotonic``.

    Raises:
        TimeIsUpError: after a step, when it is time.
    """

    def __init__(self, end: float, steps: int, warm_up: int) -> None:
        self.end, self.steps, self.warm_up = end, steps, warm_up
        self.seconds: list[float] = []
        self.waiting: list[float] = []
        self.warm = float('inf')

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: dict | None = None,
    ) -> None:
        """Notes the step."""
        if batch_idx == self.warm_up - 1:
            self.warm = time.monotonic()
        if batch_idx >= self.warm_up:
            hub = runner.message_hub
            self.seconds.append(hub.get_scalar('train/time').current())
            self.waiting.append(hub.get_scalar('train/data_time').current())
        if len(self.seconds) >= self.steps or time.monotonic() > self.end:
            raise TimeIsUpError
