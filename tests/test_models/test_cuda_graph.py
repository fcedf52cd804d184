"""A student replayed as CUDA graphs trains like one without."""

import copy
from pathlib import Path

import pytest
import torch
from helpers.tiny_hgkd import FEAT, PIXEL, SIM, hgkd, mae_file, mae_teacher
from mmpretrain.registry import MODELS
from torch import Tensor, nn

import hgkd_mm.models  # noqa: F401  registers HGKD
from hgkd_mm.sparse import CellMask


def build(folder: Path, **options: object) -> nn.Module:
    teachers = dict(mim=mae_teacher(mae_file(folder)))
    heads = dict(feat=FEAT, sim=SIM, pixel=PIXEL)
    torch.manual_seed(0)
    model = MODELS.build(hgkd(heads=heads, teachers=teachers, **options))
    model.init_weights()
    return model.train()


def inputs(seed: int, batch: int = 4) -> tuple[Tensor, CellMask]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(batch, 3, 64, 64, generator=generator)
    return images, CellMask.random(batch=batch, grid=(2, 2), mask_ratio=0.5, generator=generator)


def train(model: nn.Module, device: str, dtype: torch.dtype | None = None) -> list[Tensor]:
    """Losses, parameters and running statistics after steps of several kinds."""
    model = model.to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    results = []
    for step, batch in enumerate((4, 4, 4, 2, 4, 4)):  # the fourth as the last of an epoch
        images, mask = inputs(step, batch)
        with torch.autocast(device, dtype, enabled=dtype is not None):
            losses = model.loss(images.to(device), mask=mask)
        sum(losses.values()).backward()
        results += losses.values()
        if step != 4:  # its gradients add up with those of the fifth
            optimizer.step()
            optimizer.zero_grad()
    return [r.detach().float().cpu() for r in (*results, *model.state_dict().values())]


def test_without_a_gpu_nothing_changes(tmp_path: Path) -> None:
    plain = build(tmp_path)
    graphed = build(tmp_path, cuda_graph=True)
    for a, b in zip(train(plain, 'cpu'), train(graphed, 'cpu'), strict=True):
        assert torch.equal(a, b)


def test_another_engine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='model.cuda_graph'):
        build(tmp_path, cuda_graph=True, engine='masked_dense')


@pytest.mark.gpu
@pytest.mark.parametrize('dtype, tolerance', [(None, 1e-4), (torch.bfloat16, 2e-2)])
def test_replay_trains_like_no_graph(
    tmp_path: Path, dtype: torch.dtype | None, tolerance: float
) -> None:
    graphed = build(tmp_path, cuda_graph=True)
    plain = build(tmp_path)
    plain.load_state_dict(copy.deepcopy(graphed.state_dict()))
    wanted, found = (train(model, 'cuda', dtype) for model in (plain, graphed))
    assert graphed._graphed._graphs is not None
    for a, b in zip(wanted, found, strict=True):
        assert torch.allclose(a, b, rtol=tolerance, atol=tolerance * float(a.abs().max()))
