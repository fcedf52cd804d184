"""A heading of the doctor's report with what was found, and errors as sentences."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from hgkd_mm.utils.environment import setup_command

_CURES = (
    (
        r'operator torchvision::nms does not exist',
        'torch and torchvision come from different builds (a CPU-only torch beside the torchvision '
        'of PyPI, for example): install both from PyPI, as pinned, with `{setup}`',
    ),
    (
        r'libGL\.so|libgthread',
        'opencv-python is installed and this machine has no libGL: `pip uninstall -y opencv-python '
        'opencv-python-headless`, then `{setup}`',
    ),
    (
        r'no kernel image|undefined symbol',
        'mmcv was compiled for another GPU or torch: `{setup} --rebuild-mmcv` compiles it anew; if '
        'torch itself fails, take a build with the GPU in `torch.cuda.get_arch_list()`',
    ),
    (r'', 'install the tested versions with `{setup}`'),
)


@dataclass(kw_only=True)
class Section:
    """One heading of the report.

    Attributes:
        title: What was looked at.
        facts: Values by name, in the order in which they are printed.
        problems: Sentences on what will not work, each with what repairs it.
        notes: Sentences on what works with limits.
    """

    title: str
    facts: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The section as plain lines, for a terminal and for a log."""
        width = max(map(len, self.facts), default=0)
        lines = [self.title]
        lines += [f'  {name:<{width}}  {value}' for name, value in self.facts.items()]
        lines += [f'  PROBLEM: {problem}' for problem in self.problems]
        lines += [f'  Note: {note}' for note in self.notes]
        return '\n'.join(lines)

    @contextlib.contextmanager
    def attempt(self, what: str, *, required: bool = True) -> Iterator[None]:
        """Keeps what the block prints off the screen, and adds its error.

        Args:
            what: Subject of the sentence on the error.
            required: The error is a problem, else a note.
        """
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        except Exception as error:  # third-party code raises errors of any type
            cure = next(cure for pattern, cure in _CURES if re.search(pattern, str(error)))
            sentence = f'{what} failed ({first_line(error)}); {cure}.'
            (self.problems if required else self.notes).append(
                sentence.replace('{setup}', setup_command())
            )


def first_line(error: BaseException) -> str:
    """The type of an error and the first line of its message."""
    return f'{type(error).__name__}: {error}'.split('\n')[0]
