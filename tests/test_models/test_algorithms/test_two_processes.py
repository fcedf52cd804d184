"""Two gloo processes do what one does on the joined batch."""

import importlib.util
from pathlib import Path

import pytest
import torch
from helpers.ranks import run_two_ranks

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name('two_process_worker.py')


@pytest.fixture(scope='module')
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    directory = tmp_path_factory.mktemp('ranks')
    run_two_ranks(WORKER, 2, directory)
    return [torch.load(directory / f'{rank}.pt', weights_only=True) for rank in range(2)]


@pytest.fixture(scope='module')
def joined(tmp_path_factory: pytest.TempPathFactory) -> dict:
    spec = importlib.util.spec_from_file_location('two_process_worker', WORKER)
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    return worker.train(0, 1, tmp_path_factory.mktemp('joined'))


def test_queue_equals_that_of_one_process(ranks: list[dict], joined: dict) -> None:
    for step, expected in enumerate(joined['hgkd']):
        assert int(expected['queue']['filled']) == min(6 * (step + 1), 10)
        for name, buffer in expected['queue'].items():
            first, second = (rank['hgkd'][step]['queue'][name] for rank in ranks)
            assert torch.equal(first, second), name
            torch.testing.assert_close(first, buffer, rtol=1e-12, atol=0)


def test_mean_loss_of_the_ranks_equals_the_joined_loss(ranks: list[dict], joined: dict) -> None:
    for step, expected in enumerate(joined['hgkd']):
        assert set(expected['losses']) == {'loss_feat', 'loss_sim', 'loss_pixels'}
        for name, value in expected['losses'].items():
            first, second = (rank['hgkd'][step]['losses'][name] for rank in ranks)
            torch.testing.assert_close((first + second) / 2, value, rtol=1e-10, atol=1e-12)
    assert all(step['losses']['loss_sim'] > 0 for step in joined['hgkd'][1:])


@pytest.mark.parametrize('algorithm', ['hgkd', 'hybrid'])
def test_gradients_equal_those_of_the_joined_batch(
    ranks: list[dict], joined: dict, algorithm: str
) -> None:
    for step, expected in enumerate(joined[algorithm]):
        assert any(gradient.abs().max() > 1e-3 for gradient in expected['gradients'].values())
        for rank in ranks:
            found = rank[algorithm][step]['gradients']
            assert set(found) == set(expected['gradients'])
            for name, gradient in expected['gradients'].items():
                torch.testing.assert_close(found[name], gradient, rtol=1e-8, atol=1e-12, msg=name)
