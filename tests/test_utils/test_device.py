"""Devices named on a command line."""

import pytest

from hgkd_mm.utils.device import check_device


def test_the_cpu_is_there_and_others_are_refused_in_a_sentence() -> None:
    check_device('cpu')
    for device in ('gpu7', 'cuda:63'):
        with pytest.raises(RuntimeError, match=rf'There is no device {device!r} here .*--device'):
            check_device(device)
