"""What every teacher has in common, and how a model keeps its teachers."""

from __future__ import annotations

import copy
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hgkd_mm.sparse import CellMask

from ..outputs import LayerTokens, TeacherOutput
from ..qkv import read_qkv
from ..tokens import Pair, visible_positions, visible_tokens


class BaseTeacher(nn.Module, metaclass=ABCMeta):
    """A frozen network whose features the student imitates.

    Weights take no gradient, ``train()`` leaves it in eval mode, and ``forward`` runs without
    grad. :class:`FrozenTeachers` keeps it out of the student's state_dict, optimizer and DDP.

    Args:
        patch_size: pixels that the network makes a token of, in each direction.
        embed_dim: channels D of the tokens.
        embedding_dim: length E of an image's embedding.
        teacher_view: 'full' image, 'visible' cells only, or 'mim', the teacher's own inference
            from the visible cells. What H-GKD's teacher sees is not known (inferred default
            'full', as in Feature-Distillation and MaskDistill; 'visible' is DMAE's; 'mim' is
            G2SD's: docs/sources.md 1.3 d).
        mean: of the teacher's own normalization, R, G, B in 0..255.
        std: the same, standard deviations.
        token_stride: pixels of the student's image that a token is to cover, if not
            ``patch_size``: images are resized for the teacher, so that a ViT-L/14 has the token
            grid of a student of patch 16 (224 px become 196).
        dtype: 'bfloat16', or 'float16' on a GPU: matrix products run in it under autocast,
            whatever the student does, with weights that are kept in it; all else stays in
            float32 (docs/speed.md). None: as the student does.

    Raises:
        ValueError: ``teacher_view`` or ``dtype`` is unknown.
    """

    views: tuple[str, ...] = ('full', 'visible', 'mim')

    def __init__(
        self,
        *,
        patch_size: int,
        embed_dim: int,
        embedding_dim: int,
        teacher_view: str,
        mean: Sequence[float],
        std: Sequence[float],
        token_stride: int | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__()
        one_of('teacher_view', teacher_view, self.views)
        one_of('dtype', dtype, ('bfloat16', 'float16', None))
        self.resize = None if token_stride in (None, patch_size) else patch_size
        self.patch_size = token_stride or patch_size
        self.embed_dim = embed_dim
        self.embedding_dim = embedding_dim
        self.teacher_view = teacher_view
        self.dtype = None if dtype is None else getattr(torch, dtype)
        self.mean, self.std = tuple(mean), tuple(std)
        self.watched: tuple[int, ...] = ()
        self.register_buffer('scale', torch.ones(1, 3, 1, 1), persistent=False)
        self.register_buffer('shift', torch.zeros(1, 3, 1, 1), persistent=False)

    def match_input(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Sets the student's normalization, from which images are converted to the teacher's.

        Args:
            mean: R, G, B, in 0..255, as in the config's data_preprocessor.
            std: the same, standard deviations.
        """
        scale = [theirs / ours for theirs, ours in zip(std, self.std, strict=True)]
        shift = [
            (theirs - ours) / s for theirs, ours, s in zip(mean, self.mean, self.std, strict=True)
        ]
        self.scale = self.scale.new_tensor(scale).view(1, 3, 1, 1)
        self.shift = self.shift.new_tensor(shift).view(1, 3, 1, 1)

    @property
    def prefix(self) -> int:
        """Class and register tokens in front of the patch tokens."""
        return 0

    @property
    def has_cls(self) -> bool:
        """Whether ``cls`` of the output is there."""
        return False

    @property
    def hides_tokens(self) -> bool:
        """Whether hidden patches do not run through the network at all."""
        return self.teacher_view == 'visible'

    def blocks(self) -> Sequence[nn.Module]:
        """The attention blocks that run, in order; TypeError if the network has none."""
        raise TypeError(
            f'{type(self).__name__} is no transformer whose attention can be read, so that it has '
            'no token relations to imitate.'
        )

    def read_layers(self, layers: Iterable[int]) -> None:
        """Adds queries, keys and values of blocks, from 0, to ``layers`` of the output."""
        self.watched = tuple(sorted({*self.watched, *layers}))

    def grid(self, size: Pair) -> Pair:
        """Tokens (gh, gw) of an image of ``size`` (H, W) pixels.

        Raises:
            ValueError: the image does not divide into patches.
        """
        height, width = size
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f'Images of {height} x {width} pixels do not divide into the patches of '
                f'{self.patch_size} pixels of {type(self).__name__}: change the crop size of the '
                'data pipeline, or take a teacher of another patch_size.'
            )
        return height // self.patch_size, width // self.patch_size

    @torch.no_grad()
    def forward(self, images: Tensor, mask: CellMask | None = None) -> TeacherOutput:
        """Features of the images.

        Args:
            images: (B, 3, H, W), normalized for the student (:meth:`match_input`).
            mask: which cells the student sees; needed unless ``teacher_view`` is 'full'.

        Raises:
            ValueError: sizes don't fit, or the mask is missing.
        """
        grid = self.grid((images.shape[2], images.shape[3]))
        visible = None
        if self.teacher_view != 'full':
            if mask is None:
                raise ValueError(
                    f"teacher_view='{self.teacher_view}' needs the student's mask, but there is "
                    "none: pass mask, or set teacher_view='full'."
                )
            visible = visible_tokens(mask, grid).to(images.device)
        # In the teacher's own precision, which may be lower than the student's.
        images = images.to(self.scale.dtype) * self.scale + self.shift
        if self.resize is not None:
            size = (grid[0] * self.resize, grid[1] * self.resize)
            images = F.interpolate(images, size, mode='bicubic', antialias=True)
        blocks = self.blocks() if self.watched else ()
        precision = nullcontext()
        if self.dtype is not None:
            precision = torch.autocast(images.device.type, dtype=self.dtype)
        with precision, read_qkv({layer: blocks[layer] for layer in self.watched}) as found:
            output = self.infer(images, grid, visible)
        hides = found and visible is not None and self.hides_tokens
        index = visible_positions(visible) if hides else None
        output.layers = {
            layer: LayerTokens(qkv=qkv, prefix=self.prefix, index=index)
            for layer, qkv in found.items()
        }
        return output

    @abstractmethod
    def infer(self, images: Tensor, grid: Pair, visible: Tensor | None) -> TeacherOutput:
        """Features of images; see :meth:`output`.

        Args:
            images: (B, 3, H, W), normalized for the teacher.
            grid: (gh, gw) tokens.
            visible: (B, gh, gw) bool on the token grid, or None for the full view.
        """

    def output(
        self,
        tokens: Tensor,
        embedding: Tensor,
        grid: Pair,
        valid: Tensor | None = None,
        cls: Tensor | None = None,
    ) -> TeacherOutput:
        """(B, N, D) tokens in raster order as a map; ``valid`` is everywhere if None."""
        maps = tokens.transpose(1, 2).unflatten(2, grid).contiguous()
        if valid is None:
            valid = torch.ones_like(maps[:, 0], dtype=torch.bool)
        return TeacherOutput(tokens=maps, embedding=embedding, valid=valid, cls=cls)

    def train(self, mode: bool = True) -> BaseTeacher:
        """Leaves the teacher in eval mode, whatever ``mode`` says."""
        return super().train(False)

    def freeze(self) -> None:
        """Takes the gradient from every weight and switches to eval mode."""
        self.requires_grad_(False)
        self.eval()
        self._set_precision()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BaseTeacher:
        # A student that is cast to another type takes its teachers along; their own type stays.
        super()._apply(fn, recurse)
        self._set_precision()
        return self

    def _set_precision(self) -> None:
        if self.dtype is None:
            return
        # Once, here: autocast would round at every step, since it remembers trained weights only.
        for module in self.modules():
            # Not their subclasses, which may compute with the weight before they multiply.
            product = type(module) in (nn.Linear, nn.Conv2d)
            own = self.dtype if product else torch.float32
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                if tensor.is_floating_point():
                    tensor.data = tensor.data.to(own)


class FrozenTeachers(dict[str, BaseTeacher]):
    """Teachers by name, frozen, and kept out of ``state_dict``, ``parameters`` and DDP.

    It is no ``nn.Module``, so that a model which has one as an attribute does not register the
    teachers. The model calls :meth:`apply_` in its own ``_apply``, through which ``to``, ``cuda``,
    ``half`` and ``double`` all go.
    """

    def __init__(self, teachers: Mapping[str, BaseTeacher]) -> None:
        super().__init__(teachers)
        for teacher in self.values():
            teacher.freeze()

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Replaces every tensor of every teacher by ``fn`` of it, in place."""
        for teacher in self.values():
            teacher._apply(fn)

    def __deepcopy__(self, memo: dict[int, object]) -> FrozenTeachers:
        """Teachers of their own on the same weights, so that EMA of a student copies none."""
        for teacher in self.values():
            for weight in teacher.parameters():
                memo[id(weight)] = nn.Parameter(weight.detach(), requires_grad=False)
            for buffer in teacher.buffers():
                memo[id(buffer)] = buffer.detach()
        return FrozenTeachers({name: copy.deepcopy(one, memo) for name, one in self.items()})


def one_of(key: str, value: str | None, known: Sequence[str | None]) -> None:
    """Raises ValueError unless the config key's ``value`` is among ``known``."""
    if value not in known:
        raise ValueError(f'{key} is {value!r}, expected one of {", ".join(map(repr, known))}.')
