#!/usr/bin/env bash
# Tests a checkpoint with one process a GPU (with several processes on the CPU where there is none):
#   tools/dist_test.sh CONFIG CHECKPOINT GPUS [flags of tools/test.py]
# On several machines, on each of them: NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 [PORT=29500] tools/dist_test.sh ...
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launchers.sh"

(( $# >= 3 )) || fail "needs a config, a checkpoint and a number of processes: tools/dist_test.sh CONFIG CHECKPOINT GPUS [flags of tools/test.py]"
need_config "$1"
run_distributed test.py "$3" "$1" "$2" "${@:4}"
