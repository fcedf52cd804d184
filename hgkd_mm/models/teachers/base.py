"""What every teacher has in common, and how a model keeps its teachers."""

from __future__ import annotations

import copy
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hgkd_mm.sparse import CellMask

from ..outputs import QKV, LayerTokens, TeacherOutput
from ..qkv import read_qkv
from ..tokens import Pair, group_by_count, visible_tokens

_DTYPES = {'bfloat16': torch.bfloat16, 'float16': torch.float16}


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
            float32. Worth it where the device computes in that type (docs/speed.md); it changes
            the targets by rounding. None: as the student does.

    Raises:
        ValueError: ``mean`` or ``std`` is not three numbers, ``teacher_view`` or ``dtype`` is
            unknown, or ``token_stride`` is not positive.
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
        if dtype is not None:
            one_of('dtype', dtype, tuple(_DTYPES))
        if token_stride is not None and token_stride < 1:
            raise ValueError(f'token_stride is {token_stride}, expected pixels, 1 or more.')
        self.resize = None if token_stride in (None, patch_size) else patch_size
        self.patch_size = token_stride or patch_size
        self.embed_dim = embed_dim
        self.embedding_dim = embedding_dim
        self.teacher_view = teacher_view
        self.dtype = None if dtype is None else _DTYPES[dtype]
        self.mean, self.std = _normalization(mean, std)
        self.watched: tuple[int, ...] = ()
        self.register_buffer('scale', torch.ones(1, 3, 1, 1), persistent=False)
        self.register_buffer('shift', torch.zeros(1, 3, 1, 1), persistent=False)

    def match_input(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Sets the student's normalization, from which images are converted to the teacher's.

        Args:
            mean: R, G, B, in 0..255, as in the config's data_preprocessor.
            std: the same, standard deviations.

        Raises:
            ValueError: not three numbers, or a std that is not positive.
        """
        mean, std = _normalization(mean, std)
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
        """Asks for queries, keys and values of blocks, from 0, as ``layers`` of the output.

        Raises:
            TypeError: the network has no such blocks at all.
            ValueError: a block is out of range.
        """
        wanted = tuple(sorted({*self.watched, *layers}))
        count = len(self.blocks())
        if wanted and not 0 <= wanted[0] <= wanted[-1] < count:
            raise ValueError(
                f'Layers {list(wanted)} of a teacher are to be read, but {count} of its blocks '
                f'run: name layers from 0 to {count - 1} (teacher_layers of the head), or let more '
                "of them run (the teacher's layer)."
            )
        self.watched = wanted

    def grid(self, size: Pair) -> Pair:
        """Tokens (gh, gw) of an image of ``size`` (H, W) pixels.

        Raises:
            ValueError: the image does not divide into patches.
        """
        height, width = size
        if any(side < 1 or side % self.patch_size for side in size):
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
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f'A teacher takes images (B, 3, H, W), got {tuple(images.shape)}.')
        grid = self.grid((images.shape[2], images.shape[3]))
        visible = None
        if self.teacher_view != 'full':
            if mask is None:
                raise ValueError(
                    f"teacher_view='{self.teacher_view}' needs the student's mask, but there is "
                    "none: pass mask, or set teacher_view='full'."
                )
            if mask.batch != len(images):
                raise ValueError(f'The mask is for {mask.batch} images, but {len(images)} came in.')
            visible = visible_tokens(mask, grid).to(images.device)
        # In the teacher's own precision, which may be lower than the student's.
        images = images.to(self.scale.dtype) * self.scale + self.shift
        if self.resize is not None:
            size = (grid[0] * self.resize, grid[1] * self.resize)
            images = F.interpolate(images, size, mode='bicubic', antialias=True)
        with self._precision(images.device.type), self._reading() as found:
            output = self.infer(images, grid, visible)
        output.layers = self._layer_tokens(found, visible)
        return output

    def _reading(self) -> AbstractContextManager[dict[int, QKV]]:
        if not self.watched:
            return nullcontext({})
        blocks = self.blocks()
        return read_qkv({layer: blocks[layer] for layer in self.watched})

    def _layer_tokens(
        self, found: Mapping[int, QKV], visible: Tensor | None
    ) -> dict[int, LayerTokens]:
        index = None
        if found and visible is not None and self.hides_tokens:
            groups = group_by_count(visible)
            if len(groups) > 1:
                raise ValueError(
                    "Token relations with teacher_view='visible' need equally many visible cells "
                    f'in each image, this batch has {len(groups)} numbers of them: use '
                    "CellMask.random, which HGKD draws, or teacher_view='full'."
                )
            index = groups[0][1]
        return {
            layer: LayerTokens(qkv=qkv, prefix=self.prefix, index=index)
            for layer, qkv in found.items()
        }

    def _precision(self, device_type: str) -> AbstractContextManager:
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(device_type, dtype=self.dtype)

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
        """Takes the gradient from every weight and switches to eval mode.

        With a ``dtype``, weights of matrix products are rounded to it here: autocast would
        do so at every step, since it remembers only weights that are trained.
        """
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
        for module in self.modules():
            # Not their subclasses, which may compute with the weight before they multiply.
            product = type(module) in (nn.Linear, nn.Conv2d)
            own = self.dtype if product else torch.float32
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                if tensor.is_floating_point():
                    tensor.data = tensor.data.to(own)


class FrozenTeachers(Mapping[str, BaseTeacher]):
    """Teachers by name, kept out of ``state_dict``, ``parameters``, ``modules`` and DDP.

    It is no ``nn.Module``, so that a model which has one as an attribute does not register the
    teachers. The model calls :meth:`apply_` in its own ``_apply``, through which ``to``, ``cuda``,
    ``half`` and ``double`` all go.

    Args:
        teachers: name to teacher; each is frozen here.
    """

    def __init__(self, teachers: Mapping[str, BaseTeacher]) -> None:
        self._teachers = dict(teachers)
        for teacher in self._teachers.values():
            teacher.freeze()

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Replaces every tensor of every teacher by ``fn`` of it, in place."""
        for teacher in self._teachers.values():
            teacher._apply(fn)

    def __deepcopy__(self, memo: dict[int, object]) -> FrozenTeachers:
        """Teachers of their own on the same weights, so that EMA of a student copies none."""
        for teacher in self._teachers.values():
            for weight in teacher.parameters():
                memo[id(weight)] = nn.Parameter(weight.detach(), requires_grad=False)
            for buffer in teacher.buffers():
                memo[id(buffer)] = buffer.detach()
        return FrozenTeachers(copy.deepcopy(self._teachers, memo))

    def __getitem__(self, name: str) -> BaseTeacher:
        if name not in self._teachers:
            raise KeyError(
                f'There is no teacher called {name!r}; there are '
                f'{", ".join(self._teachers) or "none"} (config key teachers).'
            )
        return self._teachers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._teachers)

    def __len__(self) -> int:
        return len(self._teachers)

    def __repr__(self) -> str:
        inside = ', '.join(f'{k}={type(v).__name__}' for k, v in self._teachers.items())
        return f'{type(self).__name__}({inside})'


def one_of(key: str, value: str, known: Sequence[str]) -> None:
    """Raises ValueError unless the config key's ``value`` is among ``known``."""
    if value not in known:
        choices = ', '.join(map(repr, known))
        raise ValueError(f'{key}={value!r} is unknown; choose one of {choices}.')


def _normalization(
    mean: Sequence[float], std: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, std = tuple(map(float, mean)), tuple(map(float, std))
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(
            f'mean and std are three numbers each (R, G, B in 0..255), std above 0; got '
            f'mean={mean}, std={std}. Check the data_preprocessor and the teacher.'
        )
    return mean, std
