#!/usr/bin/env bash
# ALMTokenizer from a folder of recordings to a page to listen to, in the paper's order (arXiv 2504.10344; docs/codec.md).
#   scripts/recipes/almtokenizer/run.sh CORPUS [PRESET]
# CORPUS: a folder with train, valid and test splits and texts of the speech (docs/data.md). PRESET: paper (a GPU, days), or
# mini with CODEC="codec.semantic_dim=128 loss.mae=0.1" (two cores, hours). More options for a part, as words: CODEC, PRIOR,
# LM, SCORES; CODES of the first codebook (2048); LAUNCH trains by another command than python, as "accelerate launch".
# Given again, it goes on where it was.
set -euo pipefail
corpus=${1:?the folder of the corpus} preset=${2:-paper}
here=$(cd "$(dirname "$0")/../../.." && pwd)
run=almtokenizer-$preset centres=runs/almtokenizer-$preset-prior/centres.safetensors
data=(data.root="$corpus" data.tokens=null) tokenizer=(tokenizer.path="runs/$run-2/final")
# shellcheck disable=SC2206  # the options are words
codec=(codec="$preset" ${CODEC:-}) launch=(${LAUNCH:-python}) lm=(${LM:-lm=small}) prior=(${PRIOR:-}) scores=(${SCORES:-})

echo "1/6  Stage 1: the ends, with masked autoencoding"
"${launch[@]}" "$here/codec/train.py" "${codec[@]}" "${data[@]}" stage=1 gan.start=null name="$run-1"
echo "2/6  The prior: centres of what stage 1 hears"
[ -e "$centres" ] || python "$here/codec/semantic_prior.py" "${data[@]}" out="$centres" "${prior[@]}" \
  "sources=[{encoder: runs/$run-1, layer: 0, count: ${CODES:-2048}, domains: [speech, sound, music]}]"
echo "3/6  Stage 2: queries, codebooks, decoder"
"${launch[@]}" "$here/codec/train.py" "${codec[@]}" "${data[@]}" stage=2 init="runs/$run-1/final" \
  semantic_centres="$centres" name="$run-2"
echo "4/6  Tokens"
python "$here/codec/encode.py" "${data[@]}" "${tokenizer[@]}"
echo "5/6  A language model that speaks"
"${launch[@]}" "$here/lm/train.py" task=tts "${data[@]}" "${tokenizer[@]}" "${lm[@]}" name="$run-lm"
echo "6/6  Scores, and a page to listen to"
python "$here/eval/reconstruction.py" "${data[@]}" "${tokenizer[@]}" out="runs/$run-2/eval-reconstruction" "${scores[@]}"
python "$here/eval/tts.py" "${data[@]}" "${tokenizer[@]}" model="runs/$run-lm/final" out="runs/$run-lm/eval-tts" "${scores[@]}"
python "$here/scripts/demo_page.py" "runs=[runs/$run-2/eval-reconstruction,runs/$run-lm/eval-tts]" out="runs/$run-page"
