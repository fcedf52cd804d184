"""The probes in a process of their own: an op compiled for another torch may end the process.

python -m hgkd_mm.doctor.apart      # what `probes_apart` starts
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from hgkd_mm.utils.env_check import SETUP

from .probes import probes
from .section import Section

TIMEOUT = 300.0
_BEGIN, _END = '@begin ', '@section '


def probes_apart(root: Path, *, timeout: float = TIMEOUT) -> Section:
    """Runs `probes` in another process.

    Args:
        root: The repository.
        timeout: Seconds after which a probe counts as hanging.

    Returns:
        What they found, or which of them ended the process.
    """
    command = [sys.executable, '-W', 'ignore', '-m', 'hgkd_mm.doctor.apart']
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired as late:
        output = late.stdout.decode(errors='replace') if late.stdout else ''
        return read(output, f'did not come back in {timeout:.0f} s')
    return read(done.stdout, _ending(done.returncode, done.stderr))


def read(output: str, ending: str) -> Section:
    """The section that the other process printed.

    Args:
        output: What it printed.
        ending: How it ended, for the case that it printed no section.
    """
    begun = 'Starting Python'
    for line in output.splitlines():
        if line.startswith(_BEGIN):
            begun = line.removeprefix(_BEGIN)
        if line.startswith(_END):
            found = json.loads(line.removeprefix(_END))
            return Section(**{**found, 'facts': [(name, value) for name, value in found['facts']]})
    return Section(
        title='What runs',
        problems=[
            f'{begun[0].upper()}{begun[1:]} {ending}; what comes after it was not tried. A package '
            f'compiled for another torch does this: `{SETUP}`, and if it is mmcv, `{SETUP} '
            '--rebuild-mmcv`.'
        ],
    )


def _ending(status: int, errors: str) -> str:
    if status < 0:
        return f'ended the process ({signal.Signals(-status).name})'
    last = errors.strip().splitlines()[-1:] or ['no message']
    return f'ended the process (status {status}: {last[0]})'


def main() -> None:
    """Prints what is tried before it is tried, and the section when all is done."""
    section = probes(lambda what: print(f'\n{_BEGIN}{what}', flush=True))
    print(f'\n{_END}{json.dumps(asdict(section))}', flush=True)


if __name__ == '__main__':
    main()
