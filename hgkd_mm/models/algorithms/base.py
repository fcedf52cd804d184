"""What every distillation has: a student, frozen teachers, and heads that compare the two."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import ModuleDict
from mmpretrain.models.selfsup.base import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..heads.base import DistillHead
from ..outputs import TeacherOutput
from ..teachers.frozen import FrozenTeachers

Images = Tensor | list[Tensor] | tuple[Tensor, ...]


class DistillModel(BaseSelfSupervisor):
    """A student that learns without labels from frozen teachers.

    Each head is one term of the objective, and compares the student with the teacher that it
    names. Teachers stay outside ``state_dict``, optimizer and DDP.

    Args:
        backbone: the student, config or module.
        heads: name to head. A head that is None is left out, so that an override can remove
            an inherited one (``model.heads.sim=None``).
        neck: between backbone and heads; if no head reads it, it is not built.
        teachers: name to teacher. Only those that a head names are built.
        data_preprocessor: its mean and std are what teachers convert from.
        pretrained: checkpoint of the whole model to start from.
        init_cfg: initialisation config.

    Raises:
        ValueError: no head, or an unknown teacher.
    """

    def __init__(
        self,
        *,
        backbone: dict | nn.Module,
        heads: dict[str, dict | DistillHead | None],
        neck: dict | nn.Module | None = None,
        teachers: dict[str, dict | nn.Module] | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        pretrained: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        built = {name: build(head) for name, head in heads.items() if head is not None}
        if not built:
            raise ValueError(
                f'{type(self).__name__} has no head, so nothing to learn from: add one to '
                'model.heads.'
            )
        # Parameters that no loss reaches would also stop DistributedDataParallel.
        if neck is not None and not any(head.reads_decoded for head in built.values()):
            warn('The neck is not built: no head reads the decoded map.')
            neck = None
        super().__init__(
            backbone=backbone,
            neck=neck,
            pretrained=pretrained,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        # mmengine's ModuleDict, unlike PyTorch's, hands init_weights on to its members.
        self.heads = ModuleDict(built)
        self.teachers = self._build_teachers(teachers or {})

    def check_heads(self, output: type) -> None:
        """Refuses heads that do not fit the student or their teacher, and says which layers count.

        Args:
            output: what this algorithm hands to its heads.

        Raises:
            ValueError: a head does not fit.
        """
        for name, head in self.heads.items():
            if head.reads is not output:
                raise ValueError(
                    f'model.heads.{name}, a {type(head).__name__}, reads a {head.reads.__name__}, '
                    f'and the student of {type(self).__name__} gives a {output.__name__}: take '
                    'another head or algorithm (docs/pretraining.md).'
                )
            teacher = self.teacher_of(head)
            head.check(
                f'model.heads.{name}', neck=self.neck, teacher=teacher, backbone=self.backbone
            )
            if head.teacher_layers:
                teacher.read_layers(head.teacher_layers)

    def losses(self, student: Any, targets: Mapping[str, TeacherOutput]) -> dict[str, Tensor]:
        """``loss_<head>``: the weighted loss of each head.

        Args:
            student: the student's output.
            targets: each teacher's, by its name.
        """
        return {
            f'loss_{name}': self.heads[name].weight * term
            for name, term in self.terms(student, targets).items()
        }

    def terms(self, student: Any, targets: Mapping[str, TeacherOutput]) -> dict[str, Tensor]:
        """The unweighted loss of each head by its name; arguments as of :meth:`losses`."""
        return {name: head(student, targets.get(head.teacher)) for name, head in self.heads.items()}

    def teacher_of(self, head: DistillHead) -> nn.Module | None:
        """The teacher that a head names."""
        return None if head.teacher is None else self.teachers[head.teacher]

    def _build_teachers(self, configs: dict[str, dict | nn.Module]) -> FrozenTeachers:
        wanted = {}
        for name, head in self.heads.items():
            if head.teacher is None or head.teacher in wanted:
                continue
            if head.teacher not in configs:
                raise ValueError(
                    f"model.heads.{name} wants teacher '{head.teacher}', but model.teachers has "
                    f'{sorted(configs) or "none"}: correct model.heads.{name}.teacher, or add that '
                    'teacher.'
                )
            wanted[head.teacher] = build(configs[head.teacher])
        unused = sorted(set(configs) - set(wanted))
        if unused:
            warn(f'Teachers {unused} are not built: no head uses them.')
        mean, std = self._input_statistics()
        for teacher in wanted.values():
            teacher.match_input(mean, std)
        return FrozenTeachers(wanted)

    def _input_statistics(self) -> tuple[list[float], list[float]]:
        # Preprocessors that do not normalise have no such buffers.
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
            inputs: (B, 3, H, W) normalised images, alone or in a list of one view.
            data_samples: labels and meta information, if any.
            mode: 'tensor' for :meth:`extract_feat`, 'loss' for :meth:`loss`, 'predict' for
                :meth:`predict`.
            options: of :meth:`loss`, for 'loss' only.

        Raises:
            ValueError: another mode, or more than one view.
        """
        if mode == 'tensor':
            return self.extract_feat(inputs)
        if mode == 'loss':
            return self.loss(inputs, data_samples, **options)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        raise ValueError(
            f"{type(self).__name__} has the modes 'tensor', 'loss' and 'predict', got {mode!r}."
        )

    def predict(
        self, inputs: Images, data_samples: list[DataSample] | None = None
    ) -> list[DataSample]:
        """One feature vector per image: the global average of the last map.

        Returns:
            The data samples (new ones if none are given), each with ``feature``, (C,).
        """
        maps = self.extract_feat(inputs)
        features = as_tuple(maps)[-1].mean((2, 3))
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
                f'{type(self).__name__} wants one view of each image, the pipeline gives '
                f'{len(inputs)}: remove MultiView from train_dataloader.dataset.pipeline.'
            )
        return inputs[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DistillModel:
        # Teachers are no submodules, but they follow the model to its device.
        self.teachers.apply_(fn)
        return super()._apply(fn, recurse)


def as_tuple(maps: object) -> tuple:
    """One map or several, as a tuple."""
    return tuple(maps) if isinstance(maps, list | tuple) else (maps,)


def build(config: dict | nn.Module) -> nn.Module:
    """What a config describes; a module as it is."""
    return config if isinstance(config, nn.Module) else MODELS.build(config)


def warn(message: str) -> None:
    """Says so in the log of the run."""
    print_log(message, logger='current', level=logging.WARNING)
