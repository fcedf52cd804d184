"""Hybrid Distill, as two gloo processes."""

import importlib.util
from pathlib import Path

import pytest
import torch
from helpers.ranks import run_two_ranks

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name('two_teachers_worker.py')


@pytest.fixture(scope='module')
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    directory = tmp_path_factory.mktemp('ranks')
    run_two_ranks(WORKER, 2, directory)
    return [torch.load(directory / f'{rank}.pt', weights_only=True) for rank in range(2)]


@pytest.mark.parametrize('heads', ['both', 'relation'])
def test_gradients_equal_those_of_the_joined_batch(
    ranks: list[dict], tmp_path: Path, heads: str
) -> None:
    spec = importlib.util.spec_from_file_location('two_teachers_worker', WORKER)
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    expected = worker.train(0, 1, tmp_path, heads)
    assert any(gradient.abs().max() > 1e-3 for gradient in expected.values())
    for rank in ranks:
        assert set(rank[heads]) == set(expected)
        for name, gradient in expected.items():
            torch.testing.assert_close(rank[heads][name], gradient, rtol=1e-8, atol=1e-12, msg=name)
