"""Teachers beside a model: moved with it, absent from everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmengine.model import ExponentialMovingAverage
from torch import Tensor, nn

from hgkd_mm.models.outputs import TeacherOutput
from hgkd_mm.models.teachers import BaseTeacher, FrozenTeachers


class ScalingTeacher(BaseTeacher):
    """Tokens are the mean of each patch, times a weight; has batch norm and dropout."""

    def __init__(self, factor: float = 2.0) -> None:
        super().__init__(
            patch_size=2,
            embed_dim=3,
            embedding_dim=3,
            teacher_view='full',
            mean=[0, 0, 0],
            std=[1, 1, 1],
        )
        self.factor = nn.Parameter(torch.tensor(factor))
        self.layers = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.9))

    def infer(self, images: Tensor, grid: tuple, visible: Tensor | None) -> TeacherOutput:
        maps = self.layers(nn.functional.avg_pool2d(images, 2)) * self.factor
        return self.output(maps.flatten(2).transpose(1, 2), maps.mean((2, 3)), grid)


class Student(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.teachers = FrozenTeachers({'a': ScalingTeacher(), 'b': ScalingTeacher(3.0)})

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> nn.Module:
        super()._apply(fn, *args, **kwargs)
        self.teachers.apply_(fn)
        return self


def test_absent_from_everything_a_model_registers() -> None:
    student = Student()
    assert list(student.state_dict()) == ['linear.weight', 'linear.bias']
    assert len(list(student.parameters())) == 2 and not list(student.buffers())
    assert [name for name, _ in student.named_modules()] == ['', 'linear']


def test_moves_with_the_model() -> None:
    student = Student().double()
    for teacher in student.teachers.values():
        assert teacher.factor.dtype == torch.float64 and teacher.scale.dtype == torch.float64
        assert teacher.layers[0].running_mean.dtype == torch.float64
    assert student.to('meta').teachers['a'].factor.device.type == 'meta'


def test_training_the_model_leaves_teachers_in_eval_mode() -> None:
    student = Student().train()
    for teacher in student.teachers.values():
        teacher.train()
        assert not any(module.training for module in teacher.modules())
        assert not any(p.requires_grad for p in teacher.parameters())
        teacher(torch.randn(4, 3, 4, 4))
        assert not teacher.layers[0].running_mean.any()


def test_a_copy_has_the_same_weights_until_it_is_moved() -> None:
    student = Student()
    # As MMEngine's EMAHook does.
    twin = ExponentialMovingAverage(student).module
    ours, theirs = student.teachers['a'], twin.teachers['a']
    assert theirs is not ours and not theirs.factor.requires_grad
    assert theirs.factor.data_ptr() == ours.factor.data_ptr()
    assert theirs.scale.data_ptr() == ours.scale.data_ptr()
    assert twin.double().teachers['a'].factor.dtype == torch.float64
    assert ours.factor.dtype == ours.scale.dtype == torch.float32
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(theirs(x.double()).tokens.float(), ours(x).tokens)
    theirs.match_input([20, 20, 20], [10, 10, 10])
    assert float(ours.scale.sum()) == 3


def test_hand_worked_normalization() -> None:
    teacher = ScalingTeacher()
    teacher.mean, teacher.std = (10.0, 10.0, 10.0), (2.0, 4.0, 5.0)
    teacher.layers = nn.Identity()
    teacher.match_input([20, 20, 20], [10, 10, 10])
    # A pixel of 40 comes in as 2; the teacher sees (40 - 10) / (2, 4, 5), and doubles it.
    out = teacher(torch.full((1, 3, 2, 2), 2.0))
    torch.testing.assert_close(out.tokens.flatten(), torch.tensor([30.0, 15.0, 12.0]))
    assert out.valid.shape == (1, 1, 1) and out.embedding.shape == (1, 3)
