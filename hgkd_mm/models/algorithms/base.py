"""What every distillation has: a student, frozen teachers, and heads that compare the two."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.model import ModuleDict
from mmpretrain.models.selfsup.base import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..heads.base import DistillHead, Partners
from ..outputs import TeacherOutput
from ..student import Part, Student, as_tuple, build, kind_of, warn, with_derived
from ..teachers.base import BaseTeacher, FrozenTeachers

Images = Tensor | list[Tensor] | tuple[Tensor, ...]


class DistillModel(BaseSelfSupervisor):
    """A student that learns without labels from frozen teachers.

    Each head is one term of the objective, and compares the student with the teacher that it
    names. Teachers stay outside ``state_dict``, optimizer and DDP. The widths of heads and neck
    follow from backbone, neck and teachers (:meth:`DistillHead.derive`).

    Args:
        student: the student, not yet built.
        heads: name to head. A head that is None is left out, so that an override can remove
            an inherited one (``model.heads.sim=None``).
        teachers: name to teacher. Only those that a head names are built.
        data_preprocessor: its mean and std are what teachers convert from.
        pretrained: checkpoint of the whole model to start from.
        init_cfg: initialization config.

    Raises:
        ValueError: no head, an unknown teacher, or a head that does not fit.
    """

    def __init__(
        self,
        *,
        student: Student,
        heads: Mapping[str, dict | DistillHead | None],
        teachers: Mapping[str, Part] | None = None,
        data_preprocessor: Part | None = None,
        pretrained: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        heads = {name: head for name, head in heads.items() if head is not None}
        if not heads:
            raise ValueError(
                f'{type(self).__name__} has no head, so nothing to learn from: add one to '
                'model.heads.'
            )
        built_teachers = _build_teachers(heads, teachers or {})
        built = {
            name: _build_head(f'model.heads.{name}', head, student, built_teachers)
            for name, head in heads.items()
        }
        # Parameters that no loss reaches would also stop DistributedDataParallel.
        decodes = any(head.needs.student == 'decoded' for head in built.values())
        if student.given_neck is not None and not decodes:
            warn('The neck is not built: no head reads the decoded map.')
        super().__init__(
            backbone=student.given_backbone,
            neck=student.neck_config if decodes else None,
            pretrained=pretrained,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        # mmengine's ModuleDict, unlike PyTorch's, hands init_weights on to its members.
        self.heads = ModuleDict(built)
        mean, std = self._input_statistics()
        for teacher in built_teachers.values():
            teacher.match_input(mean, std)
        self.teachers = FrozenTeachers(built_teachers)

    def losses(self, student: Any, targets: Mapping[str, TeacherOutput]) -> dict[str, Tensor]:
        """``loss_<head>`` of the outputs of the student and, by name, the teachers; weighted."""
        return {
            f'loss_{name}': head.weight * head(student, targets.get(head.teacher))
            for name, head in self.heads.items()
        }

    def _input_statistics(self) -> tuple[list[float], list[float]]:
        # Preprocessors that do not normalize have no such buffers.
        mean = getattr(self.data_preprocessor, 'mean', torch.zeros(3))
        std = getattr(self.data_preprocessor, 'std', torch.ones(3))
        return mean.flatten().expand(3).tolist(), std.flatten().expand(3).tolist()

    def forward(
        self,
        inputs: Images,
        data_samples: list[DataSample] | None = None,
        mode: str = 'tensor',
        **options: Any,
    ) -> tuple[Tensor, ...] | dict[str, Tensor] | list[DataSample]:
        """Entry point of MMEngine's runner.

        Args:
            inputs: (B, 3, H, W) normalized images, alone or in a list of one view.
            data_samples: labels and meta information, if any.
            mode: 'tensor' for :meth:`extract_feat`, 'loss' for :meth:`loss`, 'predict' for
                :meth:`predict`.
            options: of :meth:`loss`, for 'loss' only.

        Raises:
            ValueError: another mode, or more than one view.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples, **options)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor':
            return self.extract_feat(inputs)
        raise ValueError(f"mode is {mode!r}, expected 'tensor', 'loss' or 'predict'.")

    def predict(
        self, inputs: Images, data_samples: list[DataSample] | None = None
    ) -> list[DataSample]:
        """One feature vector per image: the global average of the last map.

        Returns:
            The data samples (new ones if none are given), each with ``feature``, (C,).
        """
        features = as_tuple(self.extract_feat(inputs))[-1].mean((2, 3))
        data_samples = data_samples or [DataSample() for _ in features]
        for sample, feature in zip(data_samples, features, strict=True):
            sample.set_field(feature, 'feature')
        return data_samples

    @abstractmethod
    def extract_feat(self, inputs: Images) -> tuple[Tensor, ...]:
        """The backbone's (B, C, h, w) maps of whole images, without a mask."""

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """MMEngine's sum of the losses, refused if not finite, before any gradient is taken.

        The check reads one value from the device; MMEngine's RuntimeInfoHook reads every
        loss in every iteration anyway, but only after the optimizer's step.

        Raises:
            RuntimeError: a loss is nan or infinite; the message names it.
        """
        total, log_vars = super().parse_losses(losses)
        if not torch.isfinite(total):
            values = {name: value.item() for name, value in log_vars.items() if name != 'loss'}
            bad = [name for name, value in values.items() if not math.isfinite(value)]
            raise RuntimeError(
                f'{" and ".join(bad) or "The sum of the losses"} is not finite ({values}), so '
                'training stops before this step changes the weights. Lower the learning rate '
                '(optim_wrapper.optimizer.lr), clip gradients (optim_wrapper.clip_grad), use '
                'bfloat16 rather than float16, or look for broken images in this batch.'
            )
        return total, log_vars

    def single_view(self, inputs: Images) -> Tensor:
        """The images (B, 3, H, W), out of a list of one view if they come in one.

        Raises:
            ValueError: there are several views.
        """
        if isinstance(inputs, Tensor):
            return inputs
        if len(inputs) != 1:
            raise ValueError(
                f'{type(self).__name__} takes one view of each image, the pipeline gives '
                f'{len(inputs)}: remove MultiView from train_dataloader.dataset.pipeline.'
            )
        return inputs[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DistillModel:
        # Teachers are no submodules, but they follow the model to its device.
        self.teachers.apply_(fn)
        return super()._apply(fn, recurse)


def _teacher_name(head: dict | DistillHead) -> str | None:
    return head.teacher if isinstance(head, nn.Module) else head.get('teacher')


def _build_teachers(
    heads: Mapping[str, dict | DistillHead], configs: Mapping[str, Part]
) -> dict[str, BaseTeacher]:
    """The teachers that heads name."""
    wanted = {}
    for name, head in heads.items():
        teacher = _teacher_name(head)
        if teacher is None or teacher in wanted:
            continue
        if teacher not in configs:
            raise ValueError(
                f"model.heads.{name} names teacher '{teacher}', but model.teachers has "
                f'{sorted(configs) or "none"}: correct model.heads.{name}.teacher, or add that '
                'teacher.'
            )
        wanted[teacher] = build(configs[teacher])
    unused = sorted(set(configs) - set(wanted))
    if unused:
        warn(f'Teachers {unused} are not built: no head uses them.')
    return wanted


def _build_head(
    key: str, head: dict | DistillHead, student: Student, teachers: Mapping[str, BaseTeacher]
) -> DistillHead:
    """A head with the widths of its partners."""
    partners = Partners(key, student, teachers.get(_teacher_name(head)))
    kind = kind_of(head)
    if kind is not None:
        given = vars(head) if isinstance(head, nn.Module) else head
        head = with_derived(key, head, kind.derive(given, partners))
    head = build(head)
    partners.require(head.needs.student)
    head.check(partners)
    if head.needs.teacher_layers:
        partners.teacher.read_layers(head.needs.teacher_layers)
    return head
