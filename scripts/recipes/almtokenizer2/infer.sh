#!/usr/bin/env bash
# Recordings through the codes and a flow decoder: weights → wavs (docs/codec.md, "A flow decoder").
#   scripts/recipes/almtokenizer2/infer.sh WEIGHTS IN OUT [tokenizer.flow.steps=8 …]
# WEIGHTS: final/ of codec/train.py stage=3, as run.sh leaves it. IN: a file or a folder. Further options of the flow:
# tokenizer.flow.solver, guidance, temperature, seed.
set -euo pipefail
weights=${1:?the folder of the weights} input=${2:?a file or a folder of recordings} out=${3:?where to write}
here=$(cd "$(dirname "$0")/../../.." && pwd)
python "$here/codec/reconstruct.py" "$input" "$out" tokenizer.path="$weights" format=wav "${@:4}"
