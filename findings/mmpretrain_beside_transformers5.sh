#!/usr/bin/env bash
# Guess: a package that a library only uses if it is there, for models that nobody asks for, cannot
#   keep the library from being imported; or else the error names that package.
# Behaviour: mmpretrain imports its multi-modal models where transformers is installed. With
#   transformers 5 a class that they derive from is gone; a helper takes None for what it cannot
#   import, and `import mmpretrain.models` ends in a TypeError about NoneType that names neither
#   transformers nor its version. Without transformers the same import works.
# Versions: onedl-mmpretrain 1.3.6, onedl-mmengine 0.10.12, onedl-mmcv 2.3.6 (without ops),
#   transformers 5.17.0, torch 2.11.0, Python 3.11, seen on 2026-11-27.
# Here: `import hgkd_mm` sets mmpretrain's own switch for these models (hgkd_mm/utils/package_imports.py).
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
trap 'echo "NOT TRIED: a step before the question failed."; exit 2' ERR
python3 -m venv "$work/venv"
python="$work/venv/bin/python"
pip() { "$python" -m pip --quiet --disable-pip-version-check "$@"; }
pip install torch==2.11.0 torchvision==0.26.0 numpy==2.2.6 addict==2.4.0 einops==0.8.2 ftfy==6.3.1 \
  importlib-metadata==8.7.1 mat4py==0.6.0 matplotlib==3.10.8 model-index==0.1.11 \
  opencv-python-headless==4.11.0.86 platformdirs==4.5.1 pyyaml==6.0.3 pycocotools==2.0.10 \
  regex==2026.9.10 rich==14.3.4 scipy==1.15.3 termcolor==3.3.0 yapf==0.43.0 packaging==25.0 prettytable==3.17.0
# In its isolated build mmcv finds no torch and leaves its ops out; that takes seconds.
pip install --no-deps --no-cache-dir onedl-mmcv==2.3.6
pip install --no-deps onedl-mmengine==0.10.12 onedl-mmpretrain==1.3.6

look() { { "$python" -W ignore -c 'import mmpretrain.models' 2>&1 || true; } | tail -n 1; }
echo "without transformers: $(look)"
"$python" -W ignore -c 'import mmpretrain.models' >/dev/null 2>&1 || { echo 'CHANGED: it fails without transformers.'; exit 1; }
pip install transformers==5.17.0
last="$(look)"
echo "with transformers 5.17.0: $last"
if [[ "$last" != TypeError*NoneType* ]]; then echo 'CHANGED: no TypeError about NoneType.'; exit 1; fi
echo 'As described: the presence of transformers 5 ends the import of mmpretrain.models.'
