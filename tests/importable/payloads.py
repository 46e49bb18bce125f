"""Objects whose unpickling leaves a file, and pickles that would: what a reader of weights must not do."""

import pickle
from pathlib import Path


class Reduced:
    """Leaves a file when what it reduces to is called."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


class Made:
    """Leaves a file when it is made anew."""

    def __new__(cls, path):
        Path(path).touch()
        return super().__new__(cls)

    def __init__(self, path):
        self.path = path

    def __getnewargs__(self):
        return (self.path,)


class MadeByKeyword(Made):
    def __new__(cls, *, path):
        return super().__new__(cls, path)

    def __getnewargs_ex__(self):
        return (), {"path": self.path}


class Built:
    """Leaves a file when its state is set."""

    def __init__(self, path):
        self.path = path

    def __getstate__(self):
        return {"path": self.path}

    def __setstate__(self, state):
        Path(state["path"]).touch()


def text(value):
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def short(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


def payloads(path):
    """Pickles by what they try. `pickle.loads` leaves the file `path` for each of them."""
    touch, command = Reduced(path), f"touch {path}"
    system = b"cposix\nsystem\n" + text(command) + b"\x85R"
    return {
        **{f"reduced, protocol {n}": pickle.dumps(touch, n) for n in range(6)},
        "in a state dict": pickle.dumps({"state_dict": {"a.weight": touch}}, 2),
        "in a list in a tuple": pickle.dumps(([1, [touch]],), 2),
        "in a key": pickle.dumps({(1, (touch,)): 0}, 2),
        "made": _made_before(Made, path, 2),
        "made by keyword": _made_before(MadeByKeyword, path, 4),
        "built": pickle.dumps(Built(path), 2),
        "built in a state dict": pickle.dumps({"model": {"a": Built(path)}}, 4),
        "REDUCE": b"\x80\x02" + system + b".",
        "STACK_GLOBAL": b"\x80\x04" + short("posix") + short("system") + b"\x93" + text(command) + b"\x85R.",
        "STACK_GLOBAL with points": b"\x80\x04"
        + short("pathlib")
        + short("os.system")
        + b"\x93"
        + text(command)
        + b"\x85R.",
        "INST": b"(" + text(command) + b"iposix\nsystem\n.",
        "OBJ": b"(cposix\nsystem\n" + text(command) + b"o.",
        "eval": b"\x80\x02cbuiltins\neval\n" + text(f"__import__('pathlib').Path({str(path)!r}).touch()") + b"\x85R.",
        "thrown away": b"\x80\x02" + system + b"0}.",
        "remembered": b"\x80\x02cposix\nsystem\nq\x00" + text(command) + b"\x85q\x010h\x00h\x01R.",
        "in an OrderedDict": b"\x80\x02ccollections\nOrderedDict\n]](" + text("a") + system + b"ea\x85R.",
        "state of an OrderedDict": b"\x80\x02ccollections\nOrderedDict\n)R}" + text("a") + system + b"sb.",
        "in a persistent id": b"\x80\x02(" + text("storage") + system + text("0") + text("cpu") + b"K\x01tQ.",
        "how a tensor is rebuilt": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cposix\nsystem\nctorch\nTensor\n"
        + text(command)
        + b"\x85}tR.",
    }


def oddities():
    """Pickles that call nothing of harm and are no weights either, with words of the refusal."""
    rebuild = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"
    return {
        "text as persistent id": (b"Pstorage\n.", "PERSID storage"),
        "number as persistent id": (b"\x80\x02K\x01Q.", "persistent id that is no storage"),
        "extension": (b"\x80\x02\x82\x01.", "EXT1 1"),
        "buffer": (b"\x80\x05\x97.", "NEXT_BUFFER"),
        "attributes of a function": (rebuild + b"}" + text("a") + b"K\x01sb.", "torch._utils._rebuild_tensor_v2"),
        "attributes of a list": (b"\x80\x02]}b.", "attributes of a list"),
        "items of a function": (rebuild + text("a") + b"K\x01s.", "sets items of torch._utils._rebuild_tensor_v2"),
        "appended to a tuple": (b"\x80\x02)K\x01a.", "appends to a tuple"),
        "a number called": (b"\x80\x02K\x01)R.", "calls a int"),
        "a tensor of a list": (rebuild + b"]K\x00))tR.", "cannot be read"),
        "without arguments": (rebuild + b")R.", "cannot be read"),
        "with many arguments": (rebuild + b"(" + b"N" * 99 + b"tR.", "without a few arguments"),
        "size of its own": (b"\x80\x02cargparse\nNamespace\n)\x81}b.", "calls argparse.Namespace"),
        "odd dict": (b"\x80\x02}(K\x01u.", "key without a value"),
        "nothing on the stack": (b"\x80\x020.", "cannot be read"),
        "nothing remembered": (b"\x80\x02h\x07.", "cannot be read"),
        "two values": (b"\x80\x02NN.", "left over"),
        "no end": (b"\x80\x02N", "cannot be read"),
        "no opcode": (b"\x80\x02\xff.", "cannot be read"),
        "nothing": (b"", "cannot be read"),
        "long name": (b"\x80\x02c" + b"a" * 300 + b"\nb\n.", "far too long"),
        "long number": (b"L" + b"9" * 5000 + b"L\n.", "cannot be read"),
        "lying length": (b"\x80\x02X\xff\xff\xff\x7fabc.", "cannot be read"),
    }


def _made_before(kind, path, protocol):
    """A pickle of an object that is made without leaving the file."""
    held = object.__new__(kind)
    held.__dict__["path"] = str(path)
    return pickle.dumps(held, protocol)
