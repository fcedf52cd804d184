"""Mixed precision in bfloat16, on any device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner.amp import autocast
from mmengine.utils import digit_version
from torch import nn


# in mmengine's own registry, so that configs of every scope (mmpretrain, mmdet, mmseg) find it
@OPTIM_WRAPPERS.register_module()
class BF16OptimWrapper(OptimWrapper):
    """Runs the forward pass under bfloat16 autocast; weights and their update stay in fp32.

    MMEngine's ``AmpOptimWrapper(dtype='bfloat16')`` refuses to start without an accelerator, and
    scales the loss, which bfloat16 does not need (its exponent is that of fp32) and which costs a
    wait for the GPU at every step. For float16 the scaling is needed: use that one there.

    On CPU with a torch older than 2.11 attention is computed without torch's flash kernel, whose
    backward pass in bfloat16 can damage memory there (docs/doctor.md).

    Takes the arguments of ``mmengine.optim.OptimWrapper``.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocasts in addition to what the parent does for gradient accumulation."""
        with super().optim_context(model), autocast(dtype=torch.bfloat16), _sound_attention():
            yield


@contextmanager
def _sound_attention() -> Iterator[None]:
    if get_device() != 'cpu' or digit_version(torch.__version__) >= digit_version('2.11'):
        yield
        return
    before = torch.backends.cuda.flash_sdp_enabled()  # for CPU as well, whatever it is called
    torch.backends.cuda.enable_flash_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_flash_sdp(before)
