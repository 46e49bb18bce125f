"""Record the embedding of a training in a plain loop, and say what became of its updates.

python record_plain_loop.py [FOLDER]
"""

import sys

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import darkvocab

OUT = sys.argv[1] if len(sys.argv) > 1 else "runs/plain-loop"

torch.manual_seed(0)
config = GPT2Config(vocab_size=128, n_positions=32, n_embd=64, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
model = GPT2LMHeadModel(config).to(torch.bfloat16)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

with darkvocab.training.Recorder(OUT, every=5) as recorder:
    recorder.step(model, optimizer)  # before the first step: row 0
    for _ in range(20):
        ids = torch.randint(0, 96, (8, 32))  # tokens 96 to 127 are never seen
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

by_step, by_token = darkvocab.training.lost_updates(OUT)
print(by_step.select("step", "share_lost", "n_in_batch", "n_frozen", "n_moved_outside"))
print(by_token.filter(by_token["token"] >= 96).select("token", "n_moved", "n_by_gradient", "n_by_decay").head(3))
