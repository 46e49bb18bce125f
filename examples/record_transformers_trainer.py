"""Record the embedding of a training by transformers' Trainer.

python record_transformers_trainer.py [FOLDER]
"""

import sys
import tempfile

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import darkvocab

OUT = sys.argv[1] if len(sys.argv) > 1 else "runs/trainer"

torch.manual_seed(0)
config = GPT2Config(vocab_size=128, n_positions=32, n_embd=64, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
texts = [{"input_ids": ids, "labels": ids} for ids in torch.randint(0, 96, (256, 32))]

recorder = darkvocab.training.Recorder(OUT, every=10)
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(output_dir=folder, max_steps=30, save_strategy="no", report_to=[], disable_tqdm=True)
    trainer = Trainer(GPT2LMHeadModel(config), arguments, train_dataset=texts, callbacks=[recorder.callback()])
    trainer.train()

evolution = darkvocab.evolve(OUT)
print(evolution.records.select("step", "n_unique", "n_moved", "centroid_displacement"))
