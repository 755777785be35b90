#!/usr/bin/env bash
# What keeps the code space open? One codec per remedy and seed, from scratch, equal steps (docs/codec.md).
#   scripts/recipes/code_space.sh CORPUS LISTENER [STEPS]
# CORPUS: an AudioFolder with train and valid splits; LISTENER: a Whisper folder or hub id. A finished run is kept.
set -euo pipefail
corpus=${1:?the folder of the corpus} listener=${2:?a Whisper folder or hub id} steps=${3:-1200}
for seed in ${SEEDS:-0 1}; do
  for row in \
    "control" \
    "whiten16 codec.code_dim=16 codec.whiten=true" \
    "half trainer.unquantised_share=0.5" \
    "rate loss.spread=0.2 loss.commitment=0.1" \
    "dim16 codec.code_dim=16" \
    "commitment loss.commitment=0.05"; do
    read -r name options <<< "$row"
    run="space-$name-$seed"
    [ -e "runs/$run/final/model.safetensors" ] && continue
    # shellcheck disable=SC2086  # the options are words
    python codec/train.py codec=mini name="$run" data.root="$corpus" seed=$seed threads=1 precision=bf16 \
      hearing.encoder="$listener" loss.hearing=1 trainer.max_steps="$steps" trainer.valid_every=200 \
      trainer.save_every=200 trainer.keep=1 trainer.log_every=50 \
      'trainer.domain_weights={speech: 0.7, sound: 0.18, music: 0.12}' $options
  done
done
