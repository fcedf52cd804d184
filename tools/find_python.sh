#!/usr/bin/env bash
# Prints the Python to run with: HGKD_VENV's, the active environment's, or that of .venv here.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [[ -n "${HGKD_VENV:-}" ]]; then
  echo "$HGKD_VENV/bin/python"
elif [[ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" && -x "$root/.venv/bin/python" ]]; then
  echo "$root/.venv/bin/python"
else
  command -v python || { echo "No Python environment is active and $root/.venv does not exist; make it with: bash tools/setup_env.sh" >&2; exit 1; }
fi
