"""The half precisions, for tests under autocast on the CPU."""

import pytest
import torch
from mmengine.utils import digit_version

HALVES = [
    torch.bfloat16,
    pytest.param(
        torch.float16,
        marks=pytest.mark.skipif(
            digit_version(torch.__version__) < digit_version('2.4'),
            reason='autocast of this torch knows no float16 on CPU',
        ),
    ),
]
