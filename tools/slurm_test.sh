#!/usr/bin/env bash
# Tests under Slurm: tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [flags of tools/test.py]
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS come from the environment.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launchers.sh"

(( $# >= 4 )) || fail "needs a partition, a job name, a config and a checkpoint: tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [flags of tools/test.py]"
need_config "$3"
run_slurm test.py "$@"
