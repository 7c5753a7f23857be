"""Remedies: what they change, that it is put back by identity, and that batches and parameters stay the same."""

import copy
import functools
import gc
import pickle
import subprocess
import sys
from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
from cells import SETUP, Notebook
from loops import mlp
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler

from mlsys_studio.profilers.compiling import toolchain
from mlsys_studio.studio.advisor.remedies import REMEDIES, in_float32


@pytest.fixture
def notebook() -> Notebook:
    return Notebook(SETUP)


def everything(notebook: Notebook) -> list:
    """What remedies touch, to be compared by identity and value."""
    model, optimizer = notebook.names["model"], notebook.names["optimizer"]
    return [
        dict(notebook.names),
        {k: v for k, v in vars(model).items() if not isinstance(v, dict)},
        model.forward.__func__ if hasattr(model.forward, "__func__") else model.forward,
        [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups],
        [[id(p) for p in g["params"]] for g in optimizer.param_groups],
        torch.get_float32_matmul_precision(),
        gc.get_freeze_count(),
    ]


@pytest.mark.parametrize("name", sorted(REMEDIES))
def test_undone_is_as_before(name, notebook):
    remedy = REMEDIES[name]
    subjects = notebook.subjects(device="cuda" if name == "tf32" else "cpu")
    if name == "compile" and (lack := toolchain().lack()):
        pytest.skip(f"torch.compile cannot work here: {lack}")
    before = everything(notebook)
    for _ in range(2):
        assert remedy.refusal(subjects) == ""
        undo = remedy.apply(subjects)
        assert everything(notebook) != before
        undo()
        assert everything(notebook) == before


@pytest.mark.parametrize("name", sorted(REMEDIES))
def test_every_preview_is_a_line_of_code(name, notebook):
    line = REMEDIES[name].preview(notebook.subjects())
    assert line and "\n" not in line and "None" not in line


# -- the loader --------------------------------------------------------------------------------------------------------


class Numbers(Dataset):
    def __len__(self):
        return 43

    def __getitem__(self, i):
        return torch.tensor([i, i * i])


def paired(rows):
    return [tuple(r.tolist()) for r in rows]


def loaders() -> dict:
    data = Numbers()
    return {
        "sequential": lambda: DataLoader(data, batch_size=5),
        "drop last": lambda: DataLoader(data, batch_size=5, drop_last=True),
        "shuffled": lambda: DataLoader(data, batch_size=5, shuffle=True),
        "generator": lambda: DataLoader(data, 5, shuffle=True, generator=torch.Generator().manual_seed(3)),
        "sampler": lambda: DataLoader(data, 5, sampler=RandomSampler(data, replacement=True, num_samples=30)),
        "batch sampler": lambda: DataLoader(data, batch_sampler=BatchSampler(SequentialSampler(data), 7, True)),
        "no batches": lambda: DataLoader(data, batch_size=None, shuffle=True),
        "collate": lambda: DataLoader(data, 5, shuffle=True, collate_fn=paired),
    }


def rows(epoch: list) -> list:
    return sorted(str(row) for batch in epoch for row in (batch.tolist() if isinstance(batch, torch.Tensor) else batch))


@pytest.mark.parametrize("kind", sorted(loaders()))
def test_workers_fetch_the_very_same_batches(kind):
    notebook = Notebook()
    notebook.names["loader"] = old = loaders()[kind]()

    def two_epochs() -> tuple[list, float, list]:
        torch.manual_seed(7)
        if old.generator is not None:
            old.generator.manual_seed(3)
        first = [b.tolist() if isinstance(b, torch.Tensor) else b for b in notebook.names["loader"]]
        return first, torch.rand(1).item(), list(notebook.names["loader"])

    first, drawn, second = two_epochs()
    subjects = notebook.subjects(workers=2)
    warned = REMEDIES["workers"].preview(subjects).endswith("# from the second epoch on, another order")
    undo = REMEDIES["workers"].apply(subjects)
    assert notebook.names["loader"] is not old and notebook.names["loader"].num_workers == 2
    with_workers = two_epochs()
    assert with_workers[:2] == (first, drawn)
    if kind != "sampler":  # which draws with replacement
        assert rows(with_workers[2]) == rows(second)
    same_order = list(map(str, with_workers[2])) == list(map(str, second))
    assert warned is not same_order
    undo()
    assert notebook.names["loader"] is old


def test_a_loader_keeps_its_other_settings(notebook):
    def start(worker):
        pass

    old = DataLoader(Numbers(), 5, num_workers=1, timeout=60, worker_init_fn=start, prefetch_factor=3, in_order=False)
    notebook.names["loader"] = old
    undo = REMEDIES["pin"].apply(notebook.subjects())
    new = notebook.names["loader"]
    undo()
    kept = (
        "num_workers",
        "timeout",
        "worker_init_fn",
        "prefetch_factor",
        "in_order",
        "collate_fn",
        "dataset",
        "sampler",
    )
    assert all(getattr(new, name) is getattr(old, name) or getattr(new, name) == getattr(old, name) for name in kept)
    assert new.pin_memory and not old.pin_memory


def test_every_name_of_a_loader_follows(notebook):
    notebook.run("also = loader\n_ = loader")
    old = notebook.names["loader"]
    subjects = notebook.subjects()
    assert REMEDIES["workers"].preview(subjects).split(" = ")[0] in ("loader", "also")
    undo = REMEDIES["workers"].apply(subjects)
    assert notebook.names["also"] is notebook.names["loader"] is not old
    notebook.names["also"] = "the user's by now"
    undo()
    assert notebook.names["loader"] is old and notebook.names["also"] == "the user's by now"


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(10))


class Own(DataLoader):
    pass


@pytest.mark.parametrize(
    ("loader", "says"),
    [
        (lambda: DataLoader(Stream()), "IterableDataset"),
        (lambda: Own(Numbers()), "Own is not a plain DataLoader"),
    ],
)
def test_loaders_that_cannot_be_rebuilt_are_refused(loader, says, notebook):
    notebook.names["loader"] = loader()
    assert says in REMEDIES["workers"].refusal(notebook.subjects())


def test_a_loader_without_a_name_is_refused(notebook):
    subjects = notebook.subjects()
    del notebook.names["loader"]
    assert "no name in this notebook" in REMEDIES["workers"].refusal(subjects)
    assert "the loader is gone" in REMEDIES["workers"].refusal(notebook.subjects())


# -- numerics ------------------------------------------------------------------------------------------------------------


def test_autocast_computes_in_bfloat16_and_returns_float32(notebook):
    model = notebook.names["model"].eval()
    x = torch.randn(8, 16)
    seen = []
    handle = model[0].register_forward_hook(lambda m, a, out: seen.append(out.dtype))
    plain = model(x)
    undo = REMEDIES["autocast"].apply(notebook.subjects())
    cast = model(x)
    undo()
    again = model(x)
    handle.remove()
    assert seen == [torch.float32, torch.bfloat16, torch.float32]
    assert cast.dtype == torch.float32
    assert torch.equal(plain, again) and not torch.equal(plain, cast)
    assert torch.allclose(plain, cast, atol=0.05)


def test_a_forward_of_the_users_own_is_put_back(notebook):
    model = notebook.names["model"]

    def mine(x):
        return x

    model.forward = mine
    undo = REMEDIES["autocast"].apply(notebook.subjects())
    undo()
    assert vars(model)["forward"] is mine


def test_a_copy_under_autocast_has_its_own_parameters_and_a_checkpoint_needs_nothing_of_ours(notebook, tmp_path):
    model = notebook.names["model"].eval()
    x = torch.randn(8, 16)
    plain = model(x)
    undo = REMEDIES["autocast"].apply(notebook.subjects())
    cast, twin = model(x), copy.deepcopy(model)
    assert torch.equal(twin(x), cast) and not torch.equal(cast, plain)
    with torch.no_grad():
        twin[0].weight.zero_()
    assert not torch.equal(twin(x), cast) and torch.equal(model(x), cast)
    torch.save((model, x, plain), tmp_path / "model.pt")
    undo()
    load = f"""import sys, torch; sys.modules["mlsys_studio"] = None
model, x, plain = torch.load({str(tmp_path / "model.pt")!r}, weights_only=False)
print(torch.allclose(model(x), plain))"""
    ran = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, check=False)
    assert ran.stdout == "True\n", ran.stderr


def test_outputs_of_any_shape_come_back_in_float32():
    half = torch.ones(2, dtype=torch.bfloat16)
    Pair = namedtuple("Pair", "a b")
    out = in_float32({"a": half, "b": (half, [half, 3]), "c": Pair(half, torch.ones(1, dtype=torch.int64))})
    assert out["a"].dtype == out["b"][0].dtype == out["b"][1][0].dtype == out["c"].a.dtype == torch.float32
    assert type(out["c"]) is Pair and out["c"].b.dtype == torch.int64 and out["b"][1][1] == 3


@pytest.mark.parametrize(
    ("dtype", "says"), [("float32", "does not offer float32"), ("float16", "needs a GradScaler"), ("bfloat16", "")]
)
def test_what_autocast_refuses(dtype, says, notebook):
    refused = REMEDIES["autocast"].refusal(notebook.subjects(dtype))
    assert says in refused and bool(says) == bool(refused)


# -- the optimizer ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.AdamW(p, lr=1e-2),
        lambda p: torch.optim.Adam(p, lr=1e-2, amsgrad=True),
        lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9),
        lambda p: torch.optim.SGD(p, lr=1e-2),
        lambda p: torch.optim.Adagrad(p, lr=1e-2),
    ],
)
def test_fused_continues_from_the_same_state_to_the_same_parameters(make):
    def trained(fused_between: bool) -> tuple[list, dict]:
        notebook = Notebook()
        model = notebook.names["model"] = mlp()
        optimizer = notebook.names["optimizer"] = make(model.parameters())
        torch.manual_seed(1)
        undo = lambda: None
        for step in range(9):
            if step == 3 and fused_between:
                tensors = {id(t) for s in optimizer.state.values() for k, t in s.items() if k != "step"}
                undo = REMEDIES["fused-optimizer"].apply(notebook.subjects())
                assert optimizer.param_groups[0]["fused"] is True
                assert tensors == {id(t) for s in optimizer.state.values() for k, t in s.items() if k != "step"}
            if step == 6:
                undo()
            optimizer.zero_grad()
            F.cross_entropy(model(torch.randn(8, 16)), torch.randint(0, 4, (8,))).backward()
            optimizer.step()
        assert optimizer.param_groups[0]["fused"] is None
        return [p.detach() for p in model.parameters()], optimizer.state_dict()["state"]

    (fused, fused_state), (plain, plain_state) = trained(True), trained(False)
    for a, b in zip(fused, plain, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)
    assert fused_state.keys() == plain_state.keys()
    assert all(
        float(fused_state[k]["step"]) == float(plain_state[k]["step"]) for k in plain_state if "step" in plain_state[k]
    )


def test_the_optimizers_groups_are_the_same_objects(notebook):
    optimizer = notebook.names["optimizer"]
    groups = [id(g) for g in optimizer.param_groups]
    REMEDIES["fused-optimizer"].apply(notebook.subjects())()
    assert [id(g) for g in optimizer.param_groups] == groups


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: torch.optim.LBFGS(p), "LBFGS has no fused kernel"),
        (lambda p: torch.optim.Adam(p, differentiable=True), "cannot be fused"),
        (lambda p: torch.optim.Adam([nn.Parameter(torch.ones(1, device="meta"))]), "on a CPU or on CUDA only"),
    ],
)
def test_optimizers_that_cannot_be_fused_are_refused(make, says, notebook):
    notebook.names["optimizer"] = make(mlp().parameters())
    assert says in REMEDIES["fused-optimizer"].refusal(notebook.subjects())


# -- the process -----------------------------------------------------------------------------------------------------------


def test_what_needs_the_right_machine_says_so(notebook, monkeypatch):
    assert "CUDA devices only" in REMEDIES["tf32"].refusal(notebook.subjects())
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    refused = REMEDIES["compile"].refusal(notebook.subjects())
    assert (
        "torch.compile would fail on the CPU, there is no C++ compiler" in refused and "apt-get install g++" in refused
    )
    assert REMEDIES["compile"].refusal(notebook.subjects(device="cuda")) == ""


@pytest.mark.parametrize("make", [lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU()), mlp])
def test_compile_really_compiles(make, notebook, monkeypatch):
    """Witness: dynamo's own count of graphs. In torch 2.13 `nn.Sequential.compile()` makes none."""
    from torch._dynamo.utils import counters

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    counters.clear()
    model = notebook.names["model"] = make()
    x = torch.randn(3, next(model.parameters()).shape[1])
    plain = model(x)
    undo = REMEDIES["compile"].apply(notebook.subjects())
    assert torch.equal(model(x), plain) and counters["stats"]["unique_graphs"] == 1
    kept = pickle.loads(pickle.dumps(model))
    assert torch.equal(kept(x), plain) and kept._compiled_call_impl is None
    undo()
    assert torch.equal(model(x), plain) and counters["stats"]["unique_graphs"] == 1


def test_garbage_somebody_froze_already_is_left_frozen(notebook):
    gc.freeze()
    try:
        assert "already" in REMEDIES["gc-freeze"].refusal(notebook.subjects())
    finally:
        gc.unfreeze()
