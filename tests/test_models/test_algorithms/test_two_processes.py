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
def joined() -> dict:
    spec = importlib.util.spec_from_file_location('two_process_worker', WORKER)
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    return worker.train(0, 1)


def test_queue_is_identical_on_both_ranks(ranks: list[dict]) -> None:
    for first, second in zip(ranks[0]['steps'], ranks[1]['steps'], strict=True):
        for name, buffer in first['queue'].items():
            assert torch.equal(buffer, second['queue'][name]), name


def test_queue_equals_that_of_one_process(ranks: list[dict], joined: dict) -> None:
    for step, (ours, expected) in enumerate(zip(ranks[0]['steps'], joined['steps'], strict=True)):
        assert int(ours['queue']['filled']) == min(6 * (step + 1), 10)
        for name, buffer in expected['queue'].items():
            torch.testing.assert_close(ours['queue'][name], buffer, rtol=1e-12, atol=0)


def test_batches_of_different_size_are_gathered_in_rank_order(
    ranks: list[dict], joined: dict
) -> None:
    assert torch.equal(ranks[0]['uneven'], joined['uneven'])
    assert torch.equal(ranks[1]['uneven'], joined['uneven'])
    assert joined['uneven'][:, 0].tolist() == [20.0, *range(11, 20)]


def test_mean_loss_of_the_ranks_equals_the_joined_loss(ranks: list[dict], joined: dict) -> None:
    for step, expected in enumerate(joined['steps']):
        assert set(expected['losses']) == {'loss_feat', 'loss_sim', 'loss_pixels'}
        for name, value in expected['losses'].items():
            first, second = (rank['steps'][step]['losses'][name] for rank in ranks)
            torch.testing.assert_close((first + second) / 2, value, rtol=1e-10, atol=1e-12)
    assert all(step['losses']['loss_sim'] > 0 for step in joined['steps'][1:])


def test_gradients_equal_those_of_the_joined_batch(ranks: list[dict], joined: dict) -> None:
    for step, expected in enumerate(joined['steps']):
        for rank in ranks:
            for name, gradient in expected['gradients'].items():
                got = rank['steps'][step]['gradients'][name]
                torch.testing.assert_close(got, gradient, rtol=1e-8, atol=1e-12, msg=name)
