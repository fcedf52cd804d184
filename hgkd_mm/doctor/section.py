"""What the doctor found out about one thing."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Section:
    """One heading of the report.

    Attributes:
        title: What was looked at.
        facts: Names and values, in the order in which they are printed.
        problems: Sentences on what will not work, each with its cure.
        notes: Sentences on what works and is worth knowing.
    """

    title: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The section as plain lines, for a terminal and for a log."""
        width = max((len(name) for name, _ in self.facts), default=0)
        lines = [self.title]
        lines += [f'  {name:<{width}}  {value}' for name, value in self.facts]
        lines += [f'  PROBLEM: {problem}' for problem in self.problems]
        lines += [f'  Note: {note}' for note in self.notes]
        return '\n'.join(lines)
