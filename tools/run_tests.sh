#!/usr/bin/env bash
# Sets the environment up if need be, checks the style, runs the tests:
#   bash tools/run_tests.sh [--stack default|openmmlab] [--all] [arguments of pytest]
# Without --all the tests that are marked slow are left out. One process per core runs them.
set -euo pipefail
if [[ -n "${HGKD_VENV:-}" && "$HGKD_VENV" != /* ]]; then export HGKD_VENV="$PWD/$HGKD_VENV"; fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stack=default
if [[ "${1:-}" == --stack ]]; then
  stack="${2:-}"
  shift "$(( $# > 1 ? 2 : 1 ))"
fi
chosen=(-m 'not slow')
if [[ "${1:-}" == --all ]]; then
  chosen=()
  shift
fi
# the tests train detectors too
bash tools/setup_env.sh --stack "$stack" --ops
if [[ "$stack" == openmmlab ]]; then venv="${HGKD_VENV:-$PWD/.venv-openmmlab}"; else venv="${HGKD_VENV:-$PWD/.venv}"; fi

"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
# of one thread each, so that they do not share cores
OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" "$venv/bin/python" -m pytest -n logical ${chosen[@]+"${chosen[@]}"} "$@"
