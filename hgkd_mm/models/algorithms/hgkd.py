"""H-GKD: masked-image-modeling transformers distilled into a CNN."""

from typing import Any

from mmpretrain.registry import MODELS
from torch import Tensor

from hgkd_mm.sparse import ENGINE_NAMES, CellMask, GraphedNetwork, find_engine, prepare, sparsify

from ..outputs import StudentOutput, TeacherOutput
from ..student import Part, Student, as_tuple
from .base import DistillModel


@MODELS.register_module()
class HGKD(DistillModel):
    r"""Heterogeneous Generative Knowledge Distillation (arXiv 2309.09571).

    .. math::
        \hat\theta = \arg\min_\theta \sum_h w_h L_h, \qquad
        \text{in the paper } L_\mathrm{sim} + L_\mathrm{feat} \text{ (stated, plain sum)}

    The student, an unmodified CNN, computes on the visible cells of each image only; its
    neck densifies and decodes; each head compares the result with its teacher's output.
    Teachers see what their ``teacher_view`` says and run once per step. With a
    ``PixelReconstructionHead`` and no teacher this is SparK. Any number of teachers and heads
    may be combined.

    Masks come from PyTorch's global generator on the images' device. MMEngine seeds
    all ranks alike by default; with ``randomness=dict(diff_rank_seed=True)`` in the config
    each rank draws its own.

    Args:
        backbone: the CNN, config or module, giving maps from fine to coarse.
        neck: decoder of the maps, with ``out_channels`` and ``out_stride``. Heads that read the
            decoded map need it; without such heads it is not built.
        mask: ``cell``, side of a cell in pixels, and ``ratio``, hidden fraction of the cells.
            Inferred defaults 32 and .6, SparK's (docs/sources.md 1.3a).
        engine: how the student computes on visible cells, see :func:`sparsify`.
        cuda_graph: replay the student's passes as CUDA graphs, which saves the host's time where
            the GPU waits for it (docs/gpu.md). Needs the engine 'tiles'.
        distillation: ``heads``, ``teachers``, ``data_preprocessor`` and ``init_cfg`` of
            :class:`DistillModel`.

    Raises:
        ValueError: no head, an unknown teacher or engine, widths that do not fit, a bad mask, or
            a CUDA graph of another engine than 'tiles'.
        ImportError: the engine is 'spconv' and no usable spconv is installed.
    """

    def __init__(
        self,
        *,
        backbone: Part,
        neck: dict | None = None,
        mask: dict | None = None,
        engine: str = 'tiles',
        cuda_graph: bool = False,
        **distillation: Any,
    ) -> None:
        mask = {'cell': 32, 'ratio': 0.6, **(mask or {})}
        cell, mask_ratio = mask.pop('cell'), mask.pop('ratio')
        if mask or cell < 1 or not 0 <= mask_ratio < 1:
            raise ValueError(
                'model.mask has cell, a number of pixels, and ratio, at least 0 and less than 1; '
                f'got cell={cell}, ratio={mask_ratio}, other keys {sorted(mask)}.'
            )
        if engine not in ENGINE_NAMES:
            raise ValueError(f'model.engine must be one of {list(ENGINE_NAMES)}, got {engine!r}.')
        if cuda_graph and engine != 'tiles':
            raise ValueError(f"model.cuda_graph needs model.engine='tiles', got {engine!r}.")
        find_engine(engine)  # a missing package is an error before training
        super().__init__(
            student=Student(backbone, neck, output=StudentOutput, image_size=4 * cell),
            **distillation,
        )
        self.cell, self.mask_ratio, self.engine = cell, mask_ratio, engine
        prepare(self.backbone)
        neck = self.neck if self.with_neck else None
        self._graphed = GraphedNetwork(self.backbone, neck) if cuda_graph else None

    def loss(
        self, inputs: Tensor, data_samples: list | None = None, mask: CellMask | None = None
    ) -> dict[str, Tensor]:
        """``loss_<head>`` of a batch (B, 3, H, W); MMEngine's total is their sum.

        Args:
            inputs: normalized images.
            data_samples: not used; the method needs no labels (stated).
            mask: visible cells; drawn anew if None.

        Raises:
            ValueError: an image size that does not divide by the cell.
        """
        mask = self.draw_mask(inputs) if mask is None else mask.to(inputs.device)
        return self.losses(*self.compare(inputs, mask))

    def compare(
        self, images: Tensor, mask: CellMask
    ) -> tuple[StudentOutput, dict[str, TeacherOutput]]:
        """The student's output of images (B, 3, H, W), and that of each teacher by its name."""
        # Teachers first: their activations are gone before the student's are kept.
        targets = {name: teacher(images, mask) for name, teacher in self.teachers.items()}
        if self._graphed is not None:
            maps, decoded = self._graphed(images, mask)
        else:
            maps = as_tuple(self.backbone(sparsify(images, mask, engine=self.engine)))
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
