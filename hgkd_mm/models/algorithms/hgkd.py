"""H-GKD: masked-image-modeling transformers distilled into a CNN."""

import logging
import math
from collections.abc import Callable

import torch
from mmengine.logging import print_log
from mmengine.model import ModuleDict
from mmpretrain.models.selfsup.base import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from hgkd_mm.sparse import ENGINE_NAMES, CellMask, find_engine, prepare, sparsify

from ..heads.base import DistillHead
from ..outputs import StudentOutput, TeacherOutput
from ..teachers.frozen import FrozenTeachers

Images = Tensor | list[Tensor] | tuple[Tensor, ...]


@MODELS.register_module()
class HGKD(BaseSelfSupervisor):
    r"""Heterogeneous Generative Knowledge Distillation (arXiv 2309.09571).

    .. math::
        \hat\theta = \arg\min_\theta \sum_h w_h L_h, \qquad
        \text{in the paper } L_\mathrm{sim} + L_\mathrm{feat} \text{ (stated, plain sum)}

    The student, an unmodified CNN, computes on the visible cells of each image only; its
    neck densifies and decodes; each head compares the result with its teacher's output.
    Teachers see what their ``teacher_view`` says, run once per step, and stay frozen
    outside ``state_dict``, optimizer and DDP. With a ``PixelReconstructionHead`` and no
    teacher this is SparK. Any number of teachers and heads may be combined.

    Masks come from PyTorch's global generator on the images' device. MMEngine seeds
    all ranks alike by default; with ``randomness=dict(diff_rank_seed=True)`` in the config
    each rank draws its own.

    Args:
        backbone: the CNN, config or module, giving maps from fine to coarse.
        heads: name to head. A head that is None is left out, so that an override can remove
            an inherited one (``model.heads.sim=None``).
        neck: decoder of the maps; heads that read the decoded map need it, and if there is
            none it is not built.
        teachers: name to teacher. Only those that a head names are built.
        mask: ``cell``, side of a cell in pixels, and ``ratio``, hidden fraction of the cells.
            Inferred defaults 32 and .6, SparK's (docs/sources.md 1.3a).
        engine: how the student computes on visible cells, see :func:`sparsify`.
        data_preprocessor: its mean and std are what teachers convert from.
        pretrained: checkpoint of the whole model to start from.
        init_cfg: initialisation config.

    Raises:
        ValueError: no head, an unknown teacher or engine, widths that do not fit, or a bad mask.
        ImportError: the engine is 'spconv' and no usable spconv is installed.
    """

    def __init__(
        self,
        *,
        backbone: dict | nn.Module,
        heads: dict[str, dict | DistillHead | None],
        neck: dict | nn.Module | None = None,
        teachers: dict[str, dict | nn.Module] | None = None,
        mask: dict | None = None,
        engine: str = 'tiles',
        data_preprocessor: dict | nn.Module | None = None,
        pretrained: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        built = {name: _build(head) for name, head in heads.items() if head is not None}
        if not built:
            raise ValueError('HGKD has no head, so nothing to learn from: add one to model.heads.')
        # Parameters that no loss reaches would also stop DistributedDataParallel.
        if neck is not None and not any(head.reads_decoded for head in built.values()):
            _warn('The neck is not built: no head reads the decoded map.')
            neck = None
        super().__init__(
            backbone=backbone,
            neck=neck,
            pretrained=pretrained,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        self.cell, self.mask_ratio = _read_mask(mask or {})
        self.engine = _read_engine(engine)
        prepare(self.backbone)
        # mmengine's ModuleDict, unlike PyTorch's, hands init_weights on to its members.
        self.heads = ModuleDict(built)
        self.teachers = self._build_teachers(teachers or {})
        for name, head in self.heads.items():
            teacher = None if head.teacher is None else self.teachers[head.teacher]
            head.check(f'model.heads.{name}', neck=self.neck, teacher=teacher)

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
            wanted[head.teacher] = _build(configs[head.teacher])
        unused = sorted(set(configs) - set(wanted))
        if unused:
            _warn(f'Teachers {unused} are not built: no head uses them.')
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
        mask: CellMask | None = None,
    ) -> tuple[Tensor, ...] | dict[str, Tensor] | list[DataSample]:
        """Entry point of MMEngine's runner.

        Args:
            inputs: (B, 3, H, W) normalised images, alone or in a list of one view.
            data_samples: labels and meta information, if any.
            mode: 'tensor' for :meth:`extract_feat`, 'loss' for :meth:`loss`, 'predict' for
                :meth:`predict`.
            mask: for 'loss' only.

        Raises:
            ValueError: another mode, or more than one view.
        """
        if mode == 'tensor':
            return self.extract_feat(inputs)
        if mode == 'loss':
            return self.loss(inputs, data_samples, mask=mask)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        raise ValueError(f"HGKD has the modes 'tensor', 'loss' and 'predict', got {mode!r}.")

    def extract_feat(self, inputs: Images) -> tuple[Tensor, ...]:
        """The backbone's maps of whole images, computed densely, without a mask."""
        return self.backbone(_single_view(inputs))

    def predict(
        self, inputs: Images, data_samples: list[DataSample] | None = None
    ) -> list[DataSample]:
        """One feature vector per image: the global average of the last map.

        Returns:
            The data samples (new ones if none are given), each with ``feature``, (C,).
        """
        maps = self.extract_feat(inputs)
        features = _as_tuple(maps)[-1].mean((2, 3))
        data_samples = data_samples or [DataSample() for _ in features]
        for sample, feature in zip(data_samples, features, strict=True):
            sample.set_field(feature, 'feature')
        return data_samples

    def loss(
        self,
        inputs: Images,
        data_samples: list[DataSample] | None = None,
        mask: CellMask | None = None,
    ) -> dict[str, Tensor]:
        """One step's losses.

        Args:
            inputs: (B, 3, H, W) normalised images, alone or in a list of one view.
            data_samples: not used; the method needs no labels (stated).
            mask: visible cells; drawn anew if None.

        Returns:
            ``loss_<head>``: weighted loss of each head. MMEngine's total is their sum.

        Raises:
            ValueError: more than one view, or an image size that does not divide by the cell.
        """
        images = _single_view(inputs)
        mask = self.draw_mask(images) if mask is None else mask.to(images.device)
        student, targets = self.compare(images, mask)
        return {
            f'loss_{name}': head.weight * head(student, targets.get(head.teacher))
            for name, head in self.heads.items()
        }

    def compare(
        self, images: Tensor, mask: CellMask
    ) -> tuple[StudentOutput, dict[str, TeacherOutput]]:
        """What the heads compare: the student's output, and each teacher's by its name.

        Args:
            images: (B, 3, H, W) normalised images.
            mask: visible cells, on the images' device.
        """
        # Teachers first: their activations are gone before the student's are kept.
        targets = {name: teacher(images, mask) for name, teacher in self.teachers.items()}
        maps = _as_tuple(self.backbone(sparsify(images, mask, engine=self.engine)))
        decoded = self.neck(maps) if self.with_neck else None
        return StudentOutput(images=images, mask=mask, maps=maps, decoded=decoded), targets

    def draw_mask(self, images: Tensor) -> CellMask:
        """A random mask for images (B, 3, H, W).

        Raises:
            ValueError: H or W does not divide by the cell.
        """
        batch, _, height, width = images.shape
        if height % self.cell or width % self.cell:
            raise ValueError(
                f'Images of {height} x {width} px do not divide into cells of {self.cell} px: '
                'change the crop size of the pipeline or model.mask.cell.'
            )
        return CellMask.random(
            batch=batch,
            grid=(height // self.cell, width // self.cell),
            mask_ratio=self.mask_ratio,
            device=images.device,
        )

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

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> 'HGKD':
        # Teachers are no submodules, but they follow the model to its device.
        self.teachers.apply_(fn)
        return super()._apply(fn, recurse)


def _build(config: dict | nn.Module) -> nn.Module:
    return config if isinstance(config, nn.Module) else MODELS.build(config)


def _warn(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)


def _as_tuple(maps: object) -> tuple:
    return tuple(maps) if isinstance(maps, list | tuple) else (maps,)


def _single_view(inputs: Images) -> Tensor:
    if isinstance(inputs, Tensor):
        return inputs
    if len(inputs) != 1:
        raise ValueError(
            f'HGKD wants one view of each image, the pipeline gives {len(inputs)}: remove '
            'MultiView from train_dataloader.dataset.pipeline.'
        )
    return inputs[0]


def _read_engine(engine: str) -> str:
    if engine not in ENGINE_NAMES:
        raise ValueError(f'model.engine must be one of {list(ENGINE_NAMES)}, got {engine!r}.')
    find_engine(engine)  # so that a package that is missing is told of now
    return engine


def _read_mask(config: dict) -> tuple[int, float]:
    settings = dict(cell=32, ratio=0.6) | config
    unknown = sorted(set(settings) - {'cell', 'ratio'})
    if unknown:
        raise ValueError(f"model.mask has the keys 'cell' and 'ratio', got {unknown} as well.")
    cell, ratio = settings['cell'], settings['ratio']
    if cell < 1:
        raise ValueError(f'model.mask.cell must be a positive number of pixels, got {cell}.')
    if not 0 <= ratio < 1:
        raise ValueError(f'model.mask.ratio must be in [0, 1), got {ratio}.')
    return cell, ratio
