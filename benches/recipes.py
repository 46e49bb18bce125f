"""One trial of each notebook, the notebook's way in our own words: what the benchmark measures against."""

from __future__ import annotations

from collections import Counter
from typing import Any

import networkx as nx
import numpy as np
import torch


def sweep_trial(base: torch.Tensor, sigma: float, n_tokens: int) -> int:
    """12.2a: normals for every component, a sort of the rows, a cube of differences."""
    rows = (base + torch.randn(n_tokens, base.numel()) * sigma).to(torch.bfloat16).to(torch.float32)
    unique, _, counts = torch.unique(rows, dim=0, return_inverse=True, return_counts=True)
    holes = unique[counts >= 2]
    if len(holes) > 1:
        distances = (holes[:, None] - holes[None]).abs().amax(dim=2)
        pairs = distances[~torch.eye(len(holes), dtype=torch.bool)]
        pairs.max(), pairs.mean(), pairs.median()
    return len(holes)


def state(rows: torch.Tensor, unseen: torch.Tensor) -> float:
    """11.2c, what it asks of the last state: black holes, L-infinity of unseen tokens by a cube, the centroid."""
    _, _, counts = torch.unique(rows, dim=0, return_inverse=True, return_counts=True)
    counts[counts >= 2].sum().item()
    dead = rows[unseen].float()
    distances = (dead[:, None] - dead[None]).abs().amax(dim=2)[~torch.eye(len(dead), dtype=torch.bool)]
    distances.min().item(), distances.max().item(), distances.mean().item()
    return rows.mean(dim=0).norm().item()


def trial(base: torch.Tensor, sigma: float, n_tokens: int, epsilon: float) -> tuple[float, int, float]:
    """12.4b: every statistic, the distance matrix twice, the graph by networkx."""
    rows = (base + torch.randn(n_tokens, base.numel()) * sigma).to(torch.bfloat16).to(torch.float32)
    unique, _, counts = torch.unique(rows, dim=0, return_inverse=True, return_counts=True)
    holes = torch.sort(counts[counts >= 2].float()).values
    if len(holes) > 1:
        place = torch.arange(1, len(holes) + 1)
        (2 * (place * holes).sum() / (len(holes) * holes.sum()) - (len(holes) + 1) / len(holes)).item()
    if len(unique) < 2:
        return 0.0, len(unique), 1.0
    others = ~torch.eye(len(unique), dtype=torch.bool)
    distances = torch.cdist(unique, unique, p=float("inf"))[others] / epsilon
    distances.mean().item(), distances.median().item()
    near = (torch.cdist(unique, unique, p=float("inf")) <= 2 * epsilon) & others
    graph = nx.Graph()
    graph.add_nodes_from(range(len(unique)))
    graph.add_edges_from(torch.nonzero(near).tolist())
    components = list(nx.connected_components(graph))
    inside = graph.subgraph(max(components, key=len)).number_of_edges()
    [graph.degree(node) for node in graph.nodes()]
    return distances.max().item(), len(components), inside


def question(sigma: float, n_tokens: int, dim: int) -> tuple[float, float, float, int]:
    """13.5a: a cube of differences by 300 rows, hashes of tuples."""
    base = torch.randn(dim)
    rows = (base / base.norm() + torch.randn(n_tokens, dim) * sigma).to(torch.bfloat16).float()
    parts = [(rows[i : i + 300].unsqueeze(1) - rows.unsqueeze(0)).abs().max(dim=2)[0] for i in range(0, n_tokens, 300)]
    distances = torch.cat(parts)
    near = (distances < 1e-4).float()
    near.fill_diagonal_(0)
    upper = torch.triu_indices(n_tokens, n_tokens, offset=1)
    pairs = distances[upper[0], upper[1]].numpy()
    populations = Counter(hash(tuple(row.numpy())) for row in rows).values()
    return near.sum().item(), float(pairs.mean()), float(np.median(pairs)), sum(p >= 2 for p in populations)


def train(steps: int, folder: str, seed: int = 42, *callbacks: Any) -> tuple[torch.Tensor, list[float], list[float]]:
    """11.2c: transformers' Trainer on a bfloat16 model under autocast, from a snowball, every step's embedding kept.

    The history [steps + 1, 128, 64], seconds of each step but the first, and losses as logged every 100 steps.
    """
    import time

    import transformers

    from darkvocab.training.corpus import load_corpus

    transformers.logging.set_verbosity_error()
    text = load_corpus().ids.tolist()

    class Bytes(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(text) - 128

        def __getitem__(self, place: int) -> dict[str, torch.Tensor]:
            chunk = text[place : place + 129]
            return {"input_ids": torch.tensor(chunk[:-1]), "labels": torch.tensor(chunk[1:])}

    torch.manual_seed(seed)
    sizes = {"vocab_size": 128, "n_positions": 128, "n_embd": 64, "n_layer": 2, "n_head": 2}
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**sizes, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    ).to(torch.bfloat16)
    with torch.no_grad():
        model.transformer.wte.weight[:] = torch.randn(64) + torch.randn(128, 64) * 1e-5
    history = torch.zeros(steps + 1, 128, 64, dtype=torch.bfloat16)
    history[0] = model.transformer.wte.weight.data.clone()
    times: list[float] = []

    class Keep(transformers.TrainerCallback):
        def on_step_end(self, arguments, state, control, **_):  # type: ignore[no-untyped-def]
            history[state.global_step] = model.transformer.wte.weight.data.clone()
            times.append(time.perf_counter())

    arguments = transformers.TrainingArguments(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=32,
        learning_rate=1e-3,
        weight_decay=0.01,
        logging_steps=100,
        save_strategy="no",
        seed=seed,
        use_cpu=True,
        bf16=True,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=Bytes(), callbacks=[Keep(), *callbacks])
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    losses = [float(made["loss"]) for made in trainer.state.log_history if "loss" in made]
    return history, np.diff(times).tolist(), losses
