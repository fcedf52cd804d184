"""Random state that an evaluation leaves as it found it."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def isolated_rng(seed: int = 0) -> Iterator[None]:
    """Run a block from a fixed seed and give every generator its old state back.

    Covers ``random``, NumPy's global generator, torch's CPU generator and, where
    CUDA is in use, that of the current device. Training that is interrupted by
    the block goes on as if it had not been.

    Args:
        seed: What the generators start from inside the block.
    """
    # Touching CUDA before anyone else does would open a context on this device.
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            random.seed(seed)
            np.random.seed(seed)
            # torch.manual_seed would also re-seed the CUDA devices that are not restored.
            torch.default_generator.manual_seed(seed)
            if devices:
                torch.cuda.manual_seed(seed)
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
