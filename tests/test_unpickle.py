"""The restricted unpickler: what it reads is what torch saved, and nothing in a file can make it do anything."""

import collections
import functools
import io
import os
import pickle
import zipfile

import pytest
import torch

from silica_md.errors import PublishedModelError, RefusedPickleError
from silica_md.models.unpickle import Global, Record, read_pickle


class Calls:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class HasTrap:
    """Would act when its state is set or when it is made."""

    fired = []

    def __new__(cls):
        cls.fired.append("made")
        return super().__new__(cls)

    def __setstate__(self, state):
        self.fired.append("set")


def as_class_of(cls, module):
    """The class under the name of a package that is read inertly."""
    cls.__module__ = module
    cls.__qualname__ = cls.__name__
    return cls


def save_program(path, program, name="archive", **entries):
    """A file in torch's format with this pickle program."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{name}/data.pkl", program)
        for entry, content in entries.items():
            archive.writestr(f"{name}/{entry.replace('__', '/')}", content)
    return path


def save(path, thing):
    """As torch.save writes; the test's own classes are pickled by reference."""
    torch.save(thing, path)
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_and_tensors_come_back_as_they_were(tmp_path, protocol):
    base = torch.arange(24, dtype=torch.float64)
    thing = {
        "view": base.reshape(4, 6)[1:, ::2],
        "shared": base,
        "parameter": torch.nn.Parameter(torch.tensor([1.5, -2.0], dtype=torch.float32)),
        "empty": torch.empty(0, 3, dtype=torch.int64),
        "scalar": torch.tensor(True),
        "half": torch.tensor([0.5], dtype=torch.bfloat16),
        "ordered": collections.OrderedDict(a=1, b=(2, [3.5, None, "x" * 300]), c={"d": {1, 2}}),
        "bytes": b"\x00\xff",
        "none": b"",
        "dtype": torch.float32,
        "size": torch.Size((2, 3)),
        "device": torch.device("cpu"),
        "big": 1 << 70,
    }
    torch.save(thing, tmp_path / "x.pt", pickle_protocol=protocol)
    read = read_pickle(tmp_path / "x.pt")
    assert list(read) == list(thing)
    for name, value in thing.items():
        if isinstance(value, torch.Tensor):
            assert read[name].dtype == value.dtype and torch.equal(read[name], value), name
        elif name == "device":
            assert read[name] in ("cpu", "cpu:0")
        else:
            assert read[name] == value, name
    assert isinstance(read["parameter"], torch.nn.Parameter)
    assert read["view"].untyped_storage().data_ptr() == read["shared"].untyped_storage().data_ptr()


def test_modules_become_records_with_their_tensors_and_no_code(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh())
    record = read_pickle(save(tmp_path / "m.pt", module))
    assert isinstance(record, Record) and record.kind == Global("torch.nn.modules.container", "Sequential")
    linear = record.state["_modules"]["0"]
    assert torch.equal(linear.state["_parameters"]["weight"], module[0].weight)
    assert linear.state["in_features"] == 3


def test_functions_of_torch_stay_names(tmp_path):
    # torch.tanh is written as getattr(torch._C._VariableFunctionsClass, "tanh"): the only getattr that is read.
    read = read_pickle(save(tmp_path / "m.pt", [torch.tanh, torch.nn.functional.silu]))
    assert read == [Global("torch", "tanh"), Global("torch.nn.functional", "silu")]


HOSTILE = {
    "system": (lambda flag: Calls(os.system, f"touch {flag}"), "system"),
    "exec": (lambda flag: Calls(exec, f"open({str(flag)!r}, 'w')"), "builtins.exec"),
    "eval": (lambda flag: Calls(eval, f"open({str(flag)!r}, 'w')"), "builtins.eval"),
    "open": (lambda flag: Calls(open, str(flag), "w"), "io.open"),
    "import": (lambda flag: Calls(__import__, "antigravity"), "builtins.__import__"),
    "hub": (lambda flag: Calls(torch.hub.load, "someone/something", "model"), "torch.hub.load"),
    "load": (lambda flag: Calls(torch.load, str(flag)), "torch.serialization.load"),
    "jit": (lambda flag: Calls(torch.jit.load, str(flag)), "torch.jit"),
    "partial": (lambda flag: functools.partial(os.system, f"touch {flag}"), "functools.partial"),
    "pickle": (lambda flag: Calls(pickle.loads, b"x"), "pickle.loads"),
    "getattr": (lambda flag: Calls(getattr, torch.nn.functional.silu, "__globals__"), "builtins.getattr"),
    "codecs": (lambda flag: Calls(__import__("_codecs").encode, "x", "rot13"), "_codecs.encode"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("where", ["alone", "state", "module", "arguments", "key"])
def test_hostile_pickles_are_refused_by_name_and_not_executed(tmp_path, name, protocol, where):
    flag = tmp_path / "executed"
    make, named = HOSTILE[name]
    bad = make(flag)
    module = torch.nn.Linear(2, 2)
    if where == "state":
        module.note = {"deep": [bad]}
    elif where == "module":
        module._modules["child"] = bad
    thing = {"alone": bad, "arguments": Calls(torch.nn.functional.silu, bad), "key": [(bad, 1)]}.get(where, module)
    torch.save(thing, tmp_path / "m.pt", pickle_protocol=protocol)
    with pytest.raises(RefusedPickleError, match=named):
        read_pickle(tmp_path / "m.pt")
    assert not flag.exists()


def test_the_hostile_pickles_would_have_acted(tmp_path):
    # The test above can fail: torch's own loader, told to trust the file, runs it.
    flag = tmp_path / "executed"
    save(tmp_path / "m.pt", Calls(os.system, f"touch {flag}"))
    torch.load(tmp_path / "m.pt", weights_only=False)
    assert flag.exists()


def test_classes_of_the_inert_packages_are_not_made_and_their_hooks_not_called(tmp_path, monkeypatch):
    # A class that a hostile package could have placed under an allowed name.
    import torch.nn.modules.linear as home

    trap = as_class_of(HasTrap, "torch.nn.modules.linear")
    monkeypatch.setattr(home, "HasTrap", trap, raising=False)
    instance = trap()
    instance.weight = 3
    save(tmp_path / "m.pt", instance)
    HasTrap.fired.clear()
    record = read_pickle(tmp_path / "m.pt")
    assert HasTrap.fired == []
    assert record.kind.name == "HasTrap" and record.state == {"weight": 3}
    torch.load(tmp_path / "m.pt", weights_only=False)
    assert HasTrap.fired == ["made", "set"]


def test_calls_of_inert_functions_are_not_made(tmp_path):
    # torch.nn has functions that do things; a call of one stays a description of a call.
    read = read_pickle(save(tmp_path / "m.pt", Calls(torch.nn.functional.relu_, "text")))
    assert isinstance(read, Record) and read.arguments == ("text",)


@pytest.mark.parametrize(
    "program, what",
    [
        (b"cos\nsystem\n.", "os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.", r"collections.OrderedDict.__init__"),
        (b"cmacevil.x\ny\n.", "macevil.x.y"),
        (b"ctorch.nnn\nx\n.", "torch.nnn.x"),
        (b"ctorch\nload\n.", "torch.load"),
        (b"c__main__\nThing\n.", "__main__.Thing"),
        (b"(S'ls'\nios\nsystem\n.", "STRING"),
        (b"(ios\nsystem\n.", "INST"),
        (b"(cmace\nX\no.", "OBJ"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"P123\n.", "PERSID"),
        (b"\x80\x02ccollections\nOrderedDict\nq\x00}b.", "state of a Global"),
        (b"\x80\x02c__builtin__\nset\n]\x85Rq\x00}b.", "state of a set"),
    ],
)
def test_programs_written_by_hand_are_refused(tmp_path, program, what):
    with pytest.raises(RefusedPickleError, match=what):
        read_pickle(save_program(tmp_path / "m.pt", program))


@pytest.mark.parametrize(
    "program, what",
    [
        (b"", "cannot be followed|has no end"),
        (b"\x80\x02N", "cannot be followed|has no end"),
        (b"\x80\x02.", "cannot be followed"),
        (b"\x80\x02h\x07.", "cannot be followed"),
        (b"\x80\x02(.", "mark"),
        (b"\x80\x02N)R.", "a call of a NoneType"),
        (b"\x80\x02)" + b"q\x01h\x01\x86" * 60 + b")R.", "a call of a tuple"),  # 2**60 tuples if it were shown
        (b"\x80\x02})" + b"q\x01h\x01\x86" * 60 + b"Ns.", "a tuple as a key"),  # or hashed
        (b"\x80\x02Na.", "cannot be followed"),
        (b"\x80\x02}}Ns.", "cannot be followed"),
        (b"\x80\x02NQ.", "storage is not named"),
        (b"\x80\x02X\xff\xff\xff\x7fab.", "cannot be followed"),
        (b"\xff\xfe", "cannot be followed"),
    ],
)
def test_damaged_programs_are_refused(tmp_path, program, what):
    with pytest.raises(PublishedModelError, match=what):
        read_pickle(save_program(tmp_path / "m.pt", program))


def tensor_program(size, stride, offset=0, stored=4, storage="DoubleStorage"):
    """A pickle of one tensor with a layout of one's own."""
    buffer = io.BytesIO()

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing):
            return ("storage", getattr(torch, storage), "0", "cpu", stored) if isinstance(thing, Storage) else None

    Pickler(buffer, protocol=2).dump(
        Calls(torch._utils._rebuild_tensor_v2, Storage(), offset, size, stride, False, collections.OrderedDict())
    )
    return buffer.getvalue()


@pytest.mark.parametrize(
    "size, stride, offset",
    [((5,), (1,), 0), ((4,), (1,), 1), ((2, 2), (4, 1), 0), ((1 << 40,), (0,), 0), ((4,), (-1,), 3), ((2,), (1, 1), 0)],
)
def test_tensors_that_do_not_fit_their_storage_are_refused(tmp_path, size, stride, offset):
    path = save_program(tmp_path / "m.pt", tensor_program(size, stride, offset), data__0=bytes(32))
    with pytest.raises(PublishedModelError, match="_rebuild_tensor_v2"):
        read_pickle(path)


def test_storages_that_are_not_what_the_pickle_says_are_refused(tmp_path):
    program = tensor_program((4,), (1,))
    assert torch.equal(
        read_pickle(save_program(tmp_path / "a.pt", program, data__0=bytes(32))), torch.zeros(4, dtype=torch.float64)
    )
    with pytest.raises(PublishedModelError, match=r"storage 0 should hold 4 of torch.float64, but is 24 bytes long"):
        read_pickle(save_program(tmp_path / "b.pt", program, data__0=bytes(24)))
    with pytest.raises(PublishedModelError, match=r"storage 0 .* is missing"):
        read_pickle(save_program(tmp_path / "c.pt", program))
    with pytest.raises(RefusedPickleError, match=r"torch.ComplexDoubleStorage"):
        read_pickle(save_program(tmp_path / "d.pt", tensor_program((2,), (1,), 0, 2, "ComplexDoubleStorage")))


@pytest.fixture
def whole(tmp_path):
    return save(tmp_path / "m.pt", torch.nn.Linear(64, 64))


def test_truncated_files_are_refused(tmp_path, whole):
    content = whole.read_bytes()
    for length in (0, 3, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.pt").write_bytes(content[:length])
        with pytest.raises(PublishedModelError, match=r"cut\.pt .*(truncated|damaged)"):
            read_pickle(tmp_path / "cut.pt")


def test_a_flipped_bit_in_a_tensor_is_noticed(tmp_path, whole):
    with zipfile.ZipFile(whole) as archive:
        info = max(archive.infolist(), key=lambda entry: entry.file_size)
    content = bytearray(whole.read_bytes())
    content[info.header_offset + 200 + info.file_size // 2] ^= 1
    (tmp_path / "bad.pt").write_bytes(content)
    with pytest.raises(PublishedModelError, match="damaged"):
        read_pickle(tmp_path / "bad.pt")


def test_other_files_are_told_apart(tmp_path):
    (tmp_path / "text").write_text("not a model")
    with pytest.raises(PublishedModelError, match=r"no file that torch\.save wrote"):
        read_pickle(tmp_path / "text")
    with pytest.raises(PublishedModelError, match="cannot be read"):
        read_pickle(tmp_path / "absent")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(PublishedModelError, match=r"before 1\.6"):
        read_pickle(tmp_path / "old.pt")
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "script.pt"))
    with pytest.raises(PublishedModelError, match="TorchScript"):
        read_pickle(tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a/b", "c")
    with pytest.raises(PublishedModelError, match=r"without data\.pkl"):
        read_pickle(tmp_path / "other.zip")
    with zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02N." + bytes(10**6))
    with pytest.raises(PublishedModelError, match="compressed"):
        read_pickle(tmp_path / "packed.pt")


def test_nothing_of_the_published_file_is_imported(shared):
    import subprocess
    import sys

    code = (
        "import sys\n"
        "from silica_md.models.unpickle import read_pickle\n"
        f"record = read_pickle({str(shared / 'golden' / 'macersga_small.model')!r})\n"
        "assert record.kind.name == 'MACERSGA'\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('mace', 'e3nn')])\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
