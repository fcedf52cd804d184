#!/usr/bin/env bash
# Fills a folder with what tools/gpu_check.py needs of OpenMMLab, as wheels without compiled code:
#   bash tools/gpu_wheels.sh DIR [PYTHON]
# PYTHON (python3.12 unless given) is of the version that the GPU machine has. The folder goes
# there with the repository; see docs/gpu.md.
set -euo pipefail
out="${1:-}"
python="${2:-python3.12}"
[[ -n "$out" ]] || { echo "Usage: bash tools/gpu_wheels.sh DIR [PYTHON]" >&2; exit 2; }
command -v "$python" >/dev/null || { echo "There is no '$python' here: give a Python of the GPU machine's version as the second argument." >&2; exit 2; }
cd "$(dirname "${BASH_SOURCE[0]}")/.." && root="$PWD" && cd - >/dev/null

# The version that a file of requirements pins.
pin() { sed -n "s/^$1==\([^ ;]*\).*/$1==\1/p" "$root/requirements.txt" "$root/requirements/common.txt"; }

mkdir -p "$out"
common=(addict einops ftfy importlib-metadata mat4py prettytable rich termcolor terminaltables yapf)
pinned=()
for name in "${common[@]}"; do pinned+=("$(pin "$name")"); done
# modelindex 0.0.2 is an empty wheel that asks for model-index, whose module has that name.
"$python" -m pip wheel --no-deps --no-cache-dir --wheel-dir "$out" \
  "${pinned[@]}" model-index==0.1.11 ordered-set==4.1.0 platformdirs==4.14.8 wcwidth==0.2.13 \
  click==8.3.1 markdown==3.10 markdown-it-py==4.0.0 mdurl==0.1.2 pygments==2.19.2 \
  "$(pin onedl-mmengine)" "$(pin onedl-mmpretrain)"
# Without torch in pip's build environment mmcv leaves its ops out, which no stage uses.
# --no-cache-dir: such a wheel in pip's cache would be taken for the one with ops by setup_env.sh.
MMCV_WITH_OPS=0 "$python" -m pip wheel --no-deps --no-cache-dir --wheel-dir "$out" "$(pin onedl-mmcv)"

for wheel in "$out"/*.whl; do
  [[ "$wheel" == *-none-any.whl ]] || { echo "$wheel holds compiled code, which may not load on the GPU machine: delete it." >&2; exit 1; }
done
size="$(du -sm "$out" | cut -f1)"
(( size <= 20 )) || { echo "$out holds $size MiB; 20 are expected at most." >&2; exit 1; }
echo "$out: $(ls "$out"/*.whl | wc -l) wheels, $size MiB"
