from __future__ import annotations

import ast
import re
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


def test_the_script_names_the_flags_of_the_tool() -> None:
    usage = (TOOLS / 'quickstart.sh').read_text().splitlines()[2]
    tool = ast.get_docstring(ast.parse((TOOLS / 'quickstart.py').read_text()))
    flags = set(re.findall(r'--[a-z-]+', tool))
    assert flags and flags <= set(re.findall(r'--[a-z-]+', usage))
