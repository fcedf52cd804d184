"""What every distillation has: a student, frozen teachers, and heads that compare the two."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.model import ModuleDict
from mmpretrain.models.selfsup.base import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..heads.base import DistillHead, Partners
from ..outputs import TeacherOutput
from ..student import Part, Student, with_derived
from ..teachers.base import BaseTeacher, FrozenTeachers


class DistillModel(BaseSelfSupervisor):
    """A student that learns without labels from frozen teachers.

    Each head is one term of the objective, and compares the student with the teacher that it
    names. Teachers stay outside ``state_dict``, optimizer and DDP. The widths of heads and neck
    follow from backbone, neck and teachers (:meth:`DistillHead.derive`).

    Args:
        student: the student, not yet built. Its neck is built if a head reads the decoded map.
        heads: name to config. A head that is None is left out, so that an override can remove
            an inherited one (``model.heads.sim=None``).
        teachers: name to teacher. Only those that a head names are built.
        data_preprocessor: its mean and std are what teachers convert from.
        init_cfg: initialization config.

    Raises:
        ValueError: no head, an unknown teacher, or a head that does not fit.
    """

    def __init__(
        self,
        *,
        student: Student,
        heads: Mapping[str, dict | None],
        teachers: Mapping[str, Part] | None = None,
        data_preprocessor: Part | None = None,
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
        # Parameters that no loss reaches would stop DistributedDataParallel.
        decodes = any(head.reads == 'decoded' for head in built.values())
        super().__init__(
            backbone=student.given_backbone,
            neck=student.neck_config if decodes else None,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        # mmengine's ModuleDict, unlike PyTorch's, hands init_weights on to its members.
        self.heads = ModuleDict(built)
        # Preprocessors that do not normalize have no such buffers.
        mean = getattr(self.data_preprocessor, 'mean', torch.zeros(3)).flatten().expand(3)
        std = getattr(self.data_preprocessor, 'std', torch.ones(3)).flatten().expand(3)
        for teacher in built_teachers.values():
            teacher.match_input(mean.tolist(), std.tolist())
        self.teachers = FrozenTeachers(built_teachers)

    def losses(self, student: Any, targets: Mapping[str, TeacherOutput]) -> dict[str, Tensor]:
        """``loss_<head>`` of the outputs of the student and, by name, the teachers; weighted."""
        return {
            f'loss_{name}': head.weight * head(student, targets.get(head.teacher))
            for name, head in self.heads.items()
        }

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """MMEngine's sum of the losses, refused if not finite, before any gradient is taken.

        The check reads one value from the device; MMEngine's RuntimeInfoHook reads every
        loss in every iteration anyway, but only after the optimizer's step.

        Raises:
            RuntimeError: a loss is nan or infinite; the message names it.
        """
        total, log_vars = super().parse_losses(losses)
        if not torch.isfinite(total):
            values = {name: value.item() for name, value in log_vars.items()}
            bad = [name for name, value in values.items() if not math.isfinite(value)]
            raise RuntimeError(
                f'{" and ".join(bad[1:] or bad)} is not finite ({values}), so training stops '
                'before this step changes the weights. Lower the learning rate '
                '(optim_wrapper.optimizer.lr), clip gradients (optim_wrapper.clip_grad), use '
                'bfloat16 rather than float16, or look for broken images in this batch.'
            )
        return total, log_vars

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DistillModel:
        # Teachers are no submodules, but they follow the model to its device.
        self.teachers.apply_(fn)
        return super()._apply(fn, recurse)


def _build_teachers(
    heads: Mapping[str, dict], configs: Mapping[str, Part]
) -> dict[str, BaseTeacher]:
    """The teachers that heads name."""
    built = {}
    for name, head in heads.items():
        teacher = head.get('teacher')
        if teacher is None or teacher in built:
            continue
        if teacher not in configs:
            raise ValueError(
                f"model.heads.{name} names teacher '{teacher}', but model.teachers has "
                f'{sorted(configs) or "none"}: correct model.heads.{name}.teacher, or add that '
                'teacher.'
            )
        config = configs[teacher]
        built[teacher] = config if isinstance(config, nn.Module) else MODELS.build(config)
    return built


def _build_head(
    key: str, config: dict, student: Student, teachers: Mapping[str, BaseTeacher]
) -> DistillHead:
    """A head with the widths of its partners."""
    partners = Partners(key, student, teachers.get(config.get('teacher')))
    kind = config['type']
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    if kind is not None:  # else the error is the registry's
        config = with_derived(key, config, kind.derive(config, partners))
    head = MODELS.build(config)
    head.check(partners)
    if head.teacher_layers:
        partners.teacher.read_layers(head.teacher_layers)
    return head
