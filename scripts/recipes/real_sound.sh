#!/usr/bin/env bash
# A codec for real recordings, its scores, and a voice that reads, on one GPU (docs/real_sound.md).
#   scripts/recipes/real_sound.sh CORPUS LISTENER [VOICE]
# CORPUS: recordings with train, valid and test splits (docs/data.md). LISTENER: a Whisper folder or hub id that listens to the
# training. VOICE: sentences of one speaker with texts; without it there is no voice. More options for a part, as words: CODEC,
# LM, SCORES; LAUNCH trains by another command than python, as "accelerate launch". Given again, it goes on where it was.
set -euo pipefail
corpus=${1:?the folder of the corpus} listener=${2:?a Whisper folder or hub id} voice=${3:-}
here=$(cd "$(dirname "$0")/../.." && pwd)
run=real-sound tokenizer=(tokenizer.path=runs/real-sound/final)
# shellcheck disable=SC2206  # the options are words
codec=(${CODEC:-codec=small trainer.max_steps=8000 trainer.batch_size=32 precision=bf16 trainer.workers=8})
# shellcheck disable=SC2206
launch=(${LAUNCH:-python}) lm=(${LM:-lm=nano trainer.curriculum_steps=600 trainer.max_steps=8000}) scores=(${SCORES:-})

echo "1/4  The codec: reconstruction, with a listener, an axis that says the pitch, and room for the others"
"${launch[@]}" "$here/codec/train.py" data.root="$corpus" name="$run" gan.start=null codec.pitch_input=true \
  hearing.encoder="$listener" hearing.layers=6 loss.hearing=2 loss.pitch=1 loss.pitch_axis=1 loss.unpitched=0.3 \
  loss.spread=0.2 loss.commitment=0.1 loss.mae=0 loss.ar=0 \
  'trainer.domain_weights={speech: 0.5, sound: 0.28, music: 0.22}' "${codec[@]}"
echo "2/4  Its scores on the test split"
python "$here/eval/reconstruction.py" data.root="$corpus" data.tokens=null "${tokenizer[@]}" \
  out="runs/$run/eval-reconstruction" "${scores[@]}"
[ -n "$voice" ] || exit 0
reading=(data.root="$voice" data.tokens=null "${tokenizer[@]}")
echo "3/4  A language model that reads phonemes, on the voice's tokens"
"${launch[@]}" "$here/lm/train.py" task=tts "${reading[@]}" name="$run-voice" text.normalise=phonemes \
  "task.prompt='{text}'" task.decoding.guidance=2 lm.text_tokenizer.vocab_size=330 trainer.level_weights=[1,0.3,0.1] "${lm[@]}"
echo "4/4  Its scores, beside resynthesis and another sentence's text"
python "$here/eval/tts.py" "${reading[@]}" model="runs/$run-voice/final" \
  out="runs/$run-voice/eval-tts" "${scores[@]}"
