#!/usr/bin/env bash
# What keeps the code space open? One codec per remedy and seed, from scratch, equal steps (docs/codec.md, "The code space").
#   scripts/recipes/code_space.sh CORPUS [STEPS]      an AudioFolder with train and valid splits; a finished run is kept
set -euo pipefail
corpus=${1:?the folder of the corpus}
steps=${2:-1200}
for seed in 0 1; do
  for row in \
    "control" \
    "commitment loss.commitment=0.05" \
    "dim16 codec.code_dim=16" \
    "whiten16 codec.code_dim=16 codec.whiten=true" \
    "rate loss.spread=0.2 loss.commitment=0.1" \
    "half trainer.unquantised_share=0.5" \
    "whiten16half codec.code_dim=16 codec.whiten=true trainer.unquantised_share=0.5"; do
    read -r name options <<< "$row"
    run="space-$name-$seed"
    [ -e "runs/$run/final/model.safetensors" ] && continue
    # shellcheck disable=SC2086  # the options are words
    python codec/train.py codec=mini name="$run" data.root="$corpus" seed=$seed threads=1 precision=bf16 \
      trainer.max_steps="$steps" trainer.valid_every=200 trainer.save_every=200 trainer.keep=1 trainer.log_every=50 \
      'trainer.domain_weights={speech: 0.7, sound: 0.18, music: 0.12}' $options
  done
done
