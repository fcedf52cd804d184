"""Writes Scenes, the embedded data set, as ordinary folders and in COCO's and ADE20K's layouts.

    python tools/make_scenes.py --out data/scenes
    python tools/make_scenes.py --out data/scenes --folders-only    # half the time

Keeps what is complete, and writes the rest.
"""

import sys
from pathlib import Path

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from hgkd_mm.scenes.__main__ import main

    main()
