"""How a device may round and choose while something is measured."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def precise() -> Iterator[None]:
    """float32 products in float32, not in TF32."""
    with _backends(tf32=False, benchmark=False):
        yield


@contextmanager
def fast() -> Iterator[None]:
    """TF32, and cuDNN's choice of the fastest kernel by trial, as the configs train."""
    with _backends(tf32=True, benchmark=True):
        yield


def free_memory() -> None:
    """Hands back to the device what torch holds and nothing refers to."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def _backends(*, tf32: bool, benchmark: bool) -> Iterator[None]:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    matmul.allow_tf32 = cudnn.allow_tf32 = tf32
    cudnn.benchmark = benchmark
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before
