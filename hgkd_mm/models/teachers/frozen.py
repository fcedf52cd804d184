"""Teachers beside a model, not inside it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping

from torch import Tensor, nn

from .base import BaseTeacher


class FrozenTeachers(Mapping[str, BaseTeacher]):
    """Teachers by name, kept out of ``state_dict``, ``parameters``, ``modules`` and DDP.

    It is not an ``nn.Module``, so that a model which has one as an attribute does not register
    the teachers. The model moves them along by overriding ``_apply``, through which ``to``,
    ``cuda``, ``half`` and ``double`` all go::

        def _apply(self, fn, *args, **kwargs):
            super()._apply(fn, *args, **kwargs)
            self.teachers.apply_(fn)
            return self

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
