"""Train a tiny model by one of two processes, which share it by DDP or FSDP, and record it; run as a script.

python recorded_by_two.py WAY RANK FOLDER
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import transformers
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from darkvocab.training.recorder import Recorder

STEPS, VOCABULARY = 5, 51  # which two processes do not share evenly


def model():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=8, n_embd=16, n_layer=1, n_head=2, bos_token_id=None, eos_token_id=None,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, tie_word_embeddings=False,
    )  # fmt: skip
    result = transformers.GPT2LMHeadModel(config)
    result.loss_type = "ForCausalLM"
    return result


def train(way, rank, folder):
    plain = model()
    trained = DistributedDataParallel(plain) if way == "ddp" else fully_shard(plain)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-2)
    weight = plain.get_input_embeddings().weight
    copies = []

    def copy():
        copies.append((weight.full_tensor() if way == "fsdp" else weight).detach().clone())

    copy()
    with Recorder(folder / "r", tokens=[0, 3, 25, 26, 50] if way == "fsdp" else None, moments=True) as recorder:
        recorder.step(trained, optimizer)
        for k in range(STEPS):
            drawn = torch.Generator().manual_seed(10 * k + rank)
            ids = torch.randint(0, 40, (2, 8), generator=drawn)
            trained(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            copy()
    if rank == 0:
        torch.save(copies, folder / "copies.pt")


if __name__ == "__main__":
    way, rank, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    train(way, rank, folder)
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads may outlive the interpreter
