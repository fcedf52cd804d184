"""Small computations on the device, each compared with another way to compute the same."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hgkd_mm.utils import env_check
from hgkd_mm.utils.mmcv_ops import has_ops

from .section import Section

# Relative to the largest value. cuDNN rounds float32 convolutions to TF32 unless told otherwise.
ATTENTION_TOLERANCE = {'float32': 1e-3, 'bfloat16': 5e-2}
SPARSE_TOLERANCE = 1e-2


def probes(begin: Callable[[str], None]) -> Section:
    """Runs a model of each package, an mmcv op, attention and a sparse step.

    On the CPU, and on the GPU too where torch sees one. mmcv's ops and mmdet are left out where
    mmcv has no ops.

    Args:
        begin: Is told what is tried next.
    """
    section = Section(title='What runs')
    begin("Importing the packages and running mmcv's ops")
    ops = has_ops()
    problems = env_check.check_running(ops=ops)
    section.problems += problems
    if not problems:
        models = 'ResNet-18, Mask R-CNN and UperNet' if ops else 'ResNet-18 and UperNet'
        section.facts.append(('models', f'{models} can be built'))
    if env_check.attempt('import torch', _import_torch):
        return section
    section.notes += env_check.notes(ops=ops)
    import torch

    for device in ('cpu', 'cuda') if torch.cuda.is_available() else ('cpu',):
        what = f'mmcv.ops.nms, {device}'
        begin(what)
        # where it fails this is said above: a problem, or on the GPU a note, since only detectors
        # use it there
        if ops and not env_check.attempt(what, partial(env_check.run_nms, device)):
            section.facts.append((what, 'right'))
        for dtype in ATTENTION_TOLERANCE:
            check = partial(attention_error, device=device, dtype=dtype)
            what = f'attention, {dtype}, {device}'
            begin(what)
            _compare(section, what, check, ATTENTION_TOLERANCE[dtype])
        for engine in ('tiles', *_optional_engines(section if device == 'cpu' else None)):
            check = partial(sparse_error, device=device, engine=engine)
            what = f'sparse step, {engine}, {device}'
            begin(what)
            _compare(section, what, check, SPARSE_TOLERANCE)
    return section


def attention_error(*, device: str, dtype: str = 'float32') -> float:
    """Runs ``scaled_dot_product_attention``, in float32 forward and backward.

    In bfloat16 forward only, as teachers use it: its backward pass on a CPU can damage memory
    (seen with torch 2.1.2).

    Args:
        device: Where it is run.
        dtype: What it is run in.

    Returns:
        Largest difference of output and gradients to softmax(QK^T / sqrt(d)) V in float64 on the
        CPU, relative to the largest value.
    """
    import torch
    import torch.nn.functional as F

    differentiate = dtype == 'float32'
    generator = torch.Generator().manual_seed(0)
    # 49 tokens, no multiple of what fused kernels work in
    inputs = [torch.randn(2, 4, 49, 32, generator=generator) for _ in range(3)]
    weights = torch.randn(2, 4, 49, 32, generator=generator)

    def run(attention: Callable, device: str, dtype: torch.dtype) -> list[torch.Tensor]:
        leaves = [x.to(device, dtype, copy=True).requires_grad_() for x in inputs]
        out = attention(*leaves)
        if not differentiate:
            return [out.detach()]
        (out * weights.to(device, dtype)).sum().backward()
        return [out.detach(), *(x.grad for x in leaves)]

    def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1) @ v

    got = run(F.scaled_dot_product_attention, device, getattr(torch, dtype))
    return _error(got, run(plain, 'cpu', torch.float64))


def sparse_error(*, device: str, engine: str = 'tiles') -> float:
    """Runs a convolution, norm and activation on a masked image, forward and backward.

    Args:
        device: Where it is run.
        engine: Of hgkd_mm.sparse, as in the config key model.engine.

    Returns:
        Largest difference of the map and the weight's gradient to the engine 'masked_dense' in
        float64 on the CPU, relative to the largest value.
    """
    import torch
    from torch import nn

    from hgkd_mm.sparse import CellMask, sparsify

    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 32, 48, generator=generator)
    kernel = torch.randn(8, 3, 3, 3, generator=generator)
    mask = CellMask.random(batch=2, grid=(4, 6), mask_ratio=0.5, generator=generator)

    def run(engine: str, device: str, dtype: torch.dtype) -> list[torch.Tensor]:
        net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        net.to(device, dtype)
        nn.init.zeros_(net[0].bias)
        net[0].weight.data.copy_(kernel)
        out = net(sparsify(images.to(device, dtype), mask, engine=engine)).to_dense()
        out.square().sum().backward()
        return [out.detach(), net[0].weight.grad]

    got = run(engine, device, torch.float32)
    return _error(got, run('masked_dense', 'cpu', torch.float64))


def _compare(section: Section, what: str, check: Callable[[], float], tolerance: float) -> None:
    def run() -> None:
        error = check()
        if not error <= tolerance:
            raise RuntimeError(f'a result is off by {error:.1g}, allowed are {tolerance:.0e}')
        section.facts.append((what, f'right to {error:.0e}'))

    problem = env_check.attempt(what[0].upper() + what[1:], run)
    section.problems += [problem] if problem else []


def _optional_engines(section: Section | None) -> tuple[str, ...]:
    """The engine spconv where its wheel is installed; says so once."""
    from hgkd_mm.sparse.spconv import check_wheels, installed_wheels

    wheels = installed_wheels()
    try:
        check_wheels(wheels)
    except ImportError as error:
        if section is not None and wheels:
            section.notes.append(str(error))
        if section is not None and not wheels:
            section.facts.append(('spconv', 'not installed (an optional engine)'))
        return ()
    return ('spconv',)


def _error(got: list, expected: list) -> float:
    pairs = zip(got, expected, strict=True)
    return max(float((g.cpu().double() - e).abs().max() / e.abs().max()) for g, e in pairs)


def _import_torch() -> None:
    import torch  # noqa: F401
