#!/usr/bin/env bash
# Sets up this machine if needed, then distils a small CNN from a small MAE on the embedded data.
#     bash tools/quickstart.sh [--data DIR] [--train-teacher] [--transfer] [--seed N]
set -euo pipefail
if [[ -n "${HGKD_VENV:-}" && "$HGKD_VENV" != /* ]]; then export HGKD_VENV="$PWD/$HGKD_VENV"; fi
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${HGKD_VENV:-$root/.venv}"
ops=()
for argument in "$@"; do
  # argparse takes shorter forms of --transfer as well
  if [[ "$argument" == --trans* ]]; then ops=(--ops); fi
done
bash "$root/tools/setup_env.sh" ${ops[@]+"${ops[@]}"}
# the summary tells how long that took
export HGKD_SETUP_TIMES="$venv/hgkd_setup.json"
# from where it was called, so that --data DIR means what it says
exec "$venv/bin/python" "$root/tools/quickstart.py" "$@"
