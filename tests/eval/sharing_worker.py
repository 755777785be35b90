"""One process of an evaluation on a tiny corpus: runs the scripts one after another.

python sharing_worker.py FOLDER OUT     (alone, or under torch.distributed.run or accelerate launch)

FOLDER was made by tiny_task.build, with token shards in FOLDER/tokens, and FOLDER/space by tiny_notes.build; results go
to OUT/<script>, the cache is OUT/cache.
"""

import os
import sys
from pathlib import Path

from eval import (
    asr,
    captioning,
    latents,
    likelihood,
    prompted,
    reconstruction,
    semantics,
    sound_space,
    text_to_audio,
    tts,
)
from training.config import REPOSITORY, compose

CTC = REPOSITORY / "checkpoints/ctc-mini"
SPEECH = (f"ctc={CTC}", "recognisers=[ctc-mini]")
SCRIPTS = {
    "eval_tts": (tts, (*SPEECH, "dnsmos=false", "max_seconds=1.0", "batch_size=1")),
    "eval_prompted": (prompted, (*SPEECH, "model=runs/lm-tiny/final", "task=voice_prompted_tts", "dnsmos=false",
                                 "voice_judge=false", "task.decoding.max_seconds=1")),
    "eval_asr": (asr, (*SPEECH, "batch_size=1", "max_tokens=6")),
    "eval_captioning": (captioning, ("meteor=false", "batch_size=1", "max_tokens=6")),
    "eval_text_to_audio": (text_to_audio, ("class_steps=6", "max_seconds=2.0", "batch_size=1")),
    "eval_reconstruction": (
        reconstruction,
        (*SPEECH, "metrics=[stoi,mel-distance]", "dnsmos=false", "sheets=false", "concat=[1,2]", "crop_seconds=0.5",
         "data.tokens=null"),
    ),
    "eval_likelihood": (likelihood, ("tokens=tokens", "data.tokens=null")),
    "eval_semantics": (
        semantics,
        ("probes=[kind]", "+probe.kind={domain:sound,label:classes,group:null}", "runs=2", "ctc_steps=2",
         "ctc_group=null"),
    ),
    "eval_latents": (latents, ("data.root=space/notes", "labels=[instrument]", "listen=3")),
    "eval_sound_space": (
        sound_space,
        ("data.root=space/notes", "walks=[[flute A3, cello E4]]", "random_walks=2", "transfers=2", "transfer=[]",
         "to=[]", "shown=2", "speech=null"),
    ),
}  # fmt: skip


def run(folder: Path, out: Path) -> None:
    """All scripts; the working directory is left where ``folder`` is."""
    os.chdir(folder)
    for config, (script, options) in SCRIPTS.items():
        common = [f"data.root={folder / 'corpus'}", f"tokenizer.path={folder / 'codec'}", f"out={out / config}",
                  "device=cpu"]  # fmt: skip
        if config != "eval_semantics":
            common.append(f"cache={out / 'cache'}")
        cfg = compose(config, [*common, *options])
        script.main.__wrapped__(cfg)


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))
