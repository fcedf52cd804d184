"""What is said of pre-trained weights when a training starts."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from mmengine.model import BaseModule
from mmengine.optim import OptimWrapper

from hgkd_mm.engine import PretrainedReportHook


def report_at_start(model: BaseModule, **settings: object) -> list[str]:
    """What the hook logs of a model that is initialised as MMEngine does; raises what stops it."""
    lines: list[str] = []
    runner = SimpleNamespace(
        model=model,
        optim_wrapper=OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1)),
        logger=SimpleNamespace(info=lines.append),
    )
    hook = PretrainedReportHook(**settings)
    hook.before_run(runner)
    model.init_weights()
    hook.before_train(runner)
    return lines
