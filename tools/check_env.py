"""Checks the installed stack: versions, one model of each OpenMMLab package, one mmcv op.

    python tools/check_env.py [--requirements requirements/openmmlab.txt] [--quick] [--ops]

mmcv's ops and MMDetection, which needs them, are checked where they are there or asked for.

Prints a sentence for each problem, with its cure, and exits with status 1 if there is one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# hgkd_mm may be what is not installed
sys.path.insert(0, str(ROOT))

from hgkd_mm.utils import environment  # noqa: E402


def main() -> int:
    """Runs the checks; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--requirements', type=Path, help='tested pins; default: the stack found')
    parser.add_argument('--quick', action='store_true', help='compare versions only (under 1 s)')
    parser.add_argument('--ops', action='store_true', help='mmcv without ops is a problem')
    args = parser.parse_args()

    installed = environment.installed_versions()
    requirements = args.requirements or ROOT / environment.stack_of(installed)
    pins = environment.read_pins(requirements)

    problems = environment.check_versions(pins, installed)
    remarks = []
    if not args.quick:
        ops = environment.has_ops()
        if args.ops and not ops:
            problems.append(environment.missing_ops('What --ops asks for'))
        running = environment.check_running(ops=ops)
        problems += running
        remarks = environment.notes(ops=ops) if not running else []
    lines = [f'PROBLEM: {problem}' for problem in problems]
    lines += [f'Note: {remark}' for remark in remarks]
    if not problems and not args.quick:
        main_packages = [n for n in pins if n == 'torch' or n.startswith(('mm', 'onedl-mm'))]
        found = (f'{name} {environment.version_of(name, installed)}' for name in main_packages)
        lines.append(f'Works: {", ".join(found)}.')
    for line in lines:
        print(environment.for_stack(line, requirements))
    return int(bool(problems))


if __name__ == '__main__':
    sys.exit(main())
