import itertools
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.ranks import run_two_ranks
from mmengine.model import BaseModel
from mmpretrain.models import SelfSupDataPreprocessor
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.utils.data import Dataset

from hgkd_mm.evaluation import extract_features, isolated_rng, pool_features
from hgkd_mm.models.outputs import TeacherOutput

MEAN, STD = (10.0, 20.0, 30.0), (2.0, 4.0, 8.0)


class RandomImages(Dataset):
    def __init__(self, size: int, *, labelled: bool = True) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, (size, 3, 8, 8), generator=generator).byte()
        self.labelled = labelled

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        sample = DataSample()
        if self.labelled:
            sample.set_gt_label(index % 3)
        # Draws as a training augmentation would, from all three generators.
        random.random(), np.random.rand(), torch.rand(1)
        return {'inputs': self.images[index], 'data_samples': sample}


class Student(BaseModel):
    """Two maps; the last is the image, doubled when the network is in eval mode."""

    def __init__(self) -> None:
        super().__init__(data_preprocessor=SelfSupDataPreprocessor(mean=MEAN, std=STD, to_rgb=True))
        self.awake = nn.Conv2d(3, 3, 1)
        self.frozen = nn.BatchNorm2d(3)
        self.frozen.eval()

    def extract_feat(self, images: Tensor) -> tuple[Tensor, Tensor]:
        assert not torch.is_grad_enabled()
        return images[..., ::2, ::2], images * (1.0 if self.training else 2.0)

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'):
        return self.extract_feat(inputs)


def expected_features(dataset: RandomImages) -> np.ndarray:
    """BGR to RGB, normalise, double, average over the image: in numpy."""
    rgb = dataset.images.numpy()[:, ::-1].astype(np.float64)
    return 2 * (rgb.mean((2, 3)) - np.array(MEAN)) / np.array(STD)


def test_features_are_pooled_last_maps_in_dataset_order() -> None:
    dataset = RandomImages(7)
    features, labels = extract_features(Student(), dataset, batch_size=3)
    np.testing.assert_allclose(features.numpy(), expected_features(dataset), rtol=1e-5)
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert features.dtype == torch.float32 and labels.dtype == torch.int64
    helped = extract_features(Student(), dataset, batch_size=3, num_workers=1)
    assert torch.equal(helped.features, features) and torch.equal(helped.labels, labels)


def test_every_submodule_gets_its_own_mode_back() -> None:
    model = Student().train()
    model.frozen.eval()
    extract_features(model, RandomImages(2))
    assert model.training and model.awake.training and not model.frozen.training

    def fail(images: Tensor) -> Tensor:
        raise RuntimeError('forward')

    with pytest.raises(RuntimeError, match='forward'):
        extract_features(model, RandomImages(2), encode=fail)
    assert model.training and not model.frozen.training


def test_random_states_are_left_alone() -> None:
    def draws() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(1))]

    def seed() -> None:
        random.seed(3)
        np.random.seed(3)
        torch.manual_seed(3)

    model = Student()
    seed()
    undisturbed = draws()
    seed()
    extract_features(model, RandomImages(4))
    assert draws() == undisturbed
    seed()
    with isolated_rng(seed=8):
        first = draws()
    with isolated_rng(seed=8):
        assert draws() == first != undisturbed
    assert draws() == undisturbed


def test_teacher_with_its_students_preprocessor() -> None:
    class Teacher(nn.Module):
        def forward(self, images: Tensor) -> TeacherOutput:
            return TeacherOutput(images, images[:, :2, 0, 0], images[:, 0] >= 0)

    dataset = RandomImages(4)
    preprocessor = Student().data_preprocessor
    features, _ = extract_features(Teacher(), dataset, data_preprocessor=preprocessor)
    first_pixel = dataset.images[:, [2, 1], 0, 0].numpy().astype(np.float64)
    expected = (first_pixel - np.array(MEAN[:2])) / np.array(STD[:2])
    np.testing.assert_allclose(features.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize('output', [torch.zeros(2, 5, 3), {'maps': 1}, ()])
def test_outputs_that_cannot_be_pooled(output: object) -> None:
    with pytest.raises(ValueError, match='returned'):
        pool_features(output)


def test_unlabelled_datasets_are_refused() -> None:
    with pytest.raises(ValueError, match='no gt_label'):
        extract_features(Student(), RandomImages(2, labelled=False))


def test_two_processes_gather_in_order_and_fail_together(tmp_path: Path) -> None:
    sizes = (1, 5)
    run_two_ranks(Path(__file__).with_name('gather_worker.py'), tmp_path, *sizes)
    for rank, size in itertools.product(range(2), sizes):
        features, labels = torch.load(tmp_path / f'{size}.{rank}')
        assert torch.equal(features, torch.arange(size)[:, None].expand(size, 3).float())
        assert labels.tolist() == list(range(100, 100 + size))
    for rank in range(2):
        assert (tmp_path / f'error.{rank}').read_text() == 'rank 1: OSError: cannot read 1.jpg'
