"""Small runs of snowballs by Triton's kernels, interpreted: whether their records are a core's. Prints JSON.

To be run with TRITON_INTERPRET=1 in a process of its own: Triton reads that when a kernel is defined.
"""

import dataclasses
import json

import torch
from fusing import fuse

from darkvocab.gpu.device import Device
from darkvocab.snowballs import run
from darkvocab.snowballs.experiments import Questions, Sweep, Trials

ALL = ("geometry", "steps", "topology")
RUNS = {
    "12.2a": Sweep([0, 2e-9, 5e-9], n_tokens=40, epsilon=3e-5),
    "12.4b, by deviates": Trials(0.05, trials=2, n_tokens=20, dim=24, base="random", sampler="dense", measure=ALL),
    "13.5a": Questions([1e-6, 1e-4], n_tokens=30, dim=20),
    "a notebook's noise": Trials(1e-3, trials=2, n_tokens=20, dim=24, base="random", sampler="notebook", measure=ALL),
    "float32's grid": Trials(1e-7, trials=2, n_tokens=12, dim=6, base="random", grid="float32", measure=ALL),
}


def main():
    torch.set_num_threads(1)
    fuse()
    device = Device(torch.device("cpu"))
    agree = {}
    for name, settings in RUNS.items():
        ours, cores = ([*run.records(settings, device=device)], [*run.records(settings, engine="serial")])
        agree[name] = [*map(dataclasses.asdict, ours)] == [*map(dataclasses.asdict, cores)]
    print(json.dumps(agree))


if __name__ == "__main__":
    main()
