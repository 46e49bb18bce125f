"""Record the embedding of a training by Lightning's Trainer.

python record_lightning.py [FOLDER]
"""

import sys

import lightning.pytorch as lightning
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import darkvocab

OUT = sys.argv[1] if len(sys.argv) > 1 else "runs/lightning"


class Module(lightning.LightningModule):
    """A tiny GPT-2; the recorder finds the embedding of the model in it."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"vocab_size": 128, "n_positions": 32, "n_embd": 64, "n_layer": 1, "n_head": 2}
        self.model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))

    def training_step(self, ids: torch.Tensor, _: int) -> torch.Tensor:
        return self.model(input_ids=ids, labels=ids).loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


lightning.seed_everything(0)
recorder = darkvocab.training.Recorder(OUT, every=10)
trainer = lightning.Trainer(
    accelerator="cpu", max_steps=30, callbacks=[recorder.lightning()], logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False,
)  # fmt: skip
trainer.fit(Module(), torch.utils.data.DataLoader(torch.randint(0, 96, (256, 32)), batch_size=8))

evolution = darkvocab.evolve(OUT)
print(evolution.records.select("step", "n_unique", "n_moved", "centroid_displacement"))
