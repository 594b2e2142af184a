#!/usr/bin/env bash
# All steps in order; `SKIP=30-rotate` leaves out the one that takes nine minutes.
set -euo pipefail
cd "$(dirname "$0")"
for step in [0-9]*.sh; do
  if [[ " ${SKIP:-} " == *" ${step%.sh} "* ]]; then
    printf '\n#### %s: skipped\n' "$step"
    continue
  fi
  printf '\n#### %s\n' "$step"
  bash "$step"
done
