"""Triton's kernels as a card would get them, compiled on a machine without one: what their machine code is."""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TYPES = {
    torch.int8: "i8",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.bool: "i1",
}
BIN = Path(triton.__file__).parent / "backends/nvidia/bin"


class Launch(NamedTuple):
    kernel: triton.JITFunction
    signature: tuple
    constants: tuple
    divisible: tuple  # places of arguments that 16 divides, which is known when a kernel is compiled
    options: tuple


class Compiled(NamedTuple):
    code: list[str]  # instructions, and labels
    ptx: str
    registers: int
    stack: int  # bytes; registers are spilled to it

    @property
    def loop(self):
        """Instructions of the longest stretch that is jumped back over, and over no other."""
        at = {line[:-1]: k for k, line in enumerate(self.code) if line.endswith(":")}
        jumps = [(re.search(r"BRA.*?(\.L_x_\w+)", line), k) for k, line in enumerate(self.code)]
        loops = [(at[jump[1]], k + 1) for jump, k in jumps if jump and at[jump[1]] < k]
        inner = [(a, b) for a, b in loops if not any(a <= c and d <= b and (a, b) != (c, d) for c, d in loops)]
        return max(([line for line in self.code[a:b] if not line.endswith(":")] for a, b in inner), key=len)


def launches(work, monkeypatch):
    """What `work` launches, each once; nothing is run."""
    found = {}

    def run(kernel, *args, grid, warmup, **named):
        names = [parameter.name for parameter in kernel.params]
        constexprs = {parameter.name for parameter in kernel.params if parameter.is_constexpr}
        options = tuple((name, value) for name, value in named.items() if name not in names)
        given = dict(zip(names, args, strict=False)) | {name: named[name] for name in names if name in named}
        signature, constants, divisible = [], [], []
        for place, name in enumerate(names):
            value = given[name]
            if name in constexprs or (isinstance(value, int) and value == 1):
                signature.append((name, "constexpr"))
                constants.append((name, getattr(value, "value", value)))
                continue
            pointed = isinstance(value, torch.Tensor)
            signature.append((name, "*" + TYPES[value.dtype] if pointed else "i32"))
            if pointed or value % 16 == 0:
                divisible.append((place,))
        launch = Launch(kernel, tuple(signature), tuple(constants), tuple(divisible), options)
        found[launch] = None

    with monkeypatch.context() as patch:
        patch.setattr(triton.JITFunction, "run", run)
        work()
    return list(found)


def compiled(launch, capability, directory):
    source = ASTSource(
        launch.kernel,
        signature=dict(launch.signature),
        constexprs=dict(launch.constants),
        attrs={place: [["tt.divisibility", 16]] for place in launch.divisible},
    )
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=dict(launch.options))
    file = Path(directory) / f"{launch.kernel.__name__}.cubin"
    file.write_bytes(made.asm["cubin"])
    used = _run("cuobjdump", "-res-usage", file)
    registers, stack = (int(re.search(rf"{what}:(\d+)", used)[1]) for what in ("REG", "STACK"))
    listing = _run("nvdisasm", "-c", file).splitlines()
    lines = (re.search(r"^(\.L_x_\w+:)|/\*[0-9a-f]{4,}\*/\s+(.*?);", line) for line in listing)
    return Compiled([line[1] or line[2].strip() for line in lines if line], made.asm["ptx"], registers, stack)


def _run(tool, *arguments):
    done = subprocess.run([BIN / tool, *map(str, arguments)], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr
