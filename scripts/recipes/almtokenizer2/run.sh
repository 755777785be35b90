#!/usr/bin/env bash
# A flow decoder in the place of the GAN's, after ALMTokenizer2: from a folder of recordings to a codec, and what it is worth.
#   scripts/recipes/almtokenizer2/run.sh CORPUS [CODEC]
# CORPUS: a folder with train, valid and test splits (docs/data.md). CODEC: final/ of a trained codec, whose codes stay what
# they are; without, the one that ships. More options as words: FLOW of the training, as "flow.prior=zero flow.dim=512";
# SCORES of the comparison. KEYS are those of the codec's architecture that differ from codec=mini's.
# LAUNCH trains by another command than python, as "accelerate launch". Given again, it goes on where it was.
set -euo pipefail
corpus=${1:?the folder of the corpus}
here=$(cd "$(dirname "$0")/../../.." && pwd)
codec=${2:-$here/checkpoints/codec-real}
shipped="codec.encoder_dim=192 codec.encoder_layers=4 codec.decoder_dim=320 codec.decoder_layers=5"
# shellcheck disable=SC2206  # the options are words
keys=(${KEYS-$shipped}) launch=(${LAUNCH:-python}) flow=(${FLOW:-}) scores=(${SCORES:-})

echo "1/2  Stage 3: the regression head, then the flow"
"${launch[@]}" "$here/codec/train.py" codec=mini "${keys[@]}" data.root="$corpus" stage=3 init="$codec" name=almtokenizer2 \
  trainer.ema=0.999 'trainer.domain_weights={speech: 0.34, sound: 0.33, music: 0.33}' "${flow[@]}"
echo "2/2  Decoders of the same codes, side by side"
python "$here/eval/compare.py" comparison=decoders comparison.rows.shipped.options.path="$codec" \
  comparison.rows.flow.options.path=runs/almtokenizer2/final "comparison.data=['data.root=$corpus']" "${scores[@]}"
