"""What several hooks ask of the runner."""

from __future__ import annotations

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn


def trained_model(runner: Runner) -> nn.Module:
    """The model of a runner, without the wrapper of distributed training."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
