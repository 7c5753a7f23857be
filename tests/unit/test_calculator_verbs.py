"""The calculators as verbs: what their first word may name, what they refuse, and that sizes need no torch."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from mlsys_studio.profilers.calculators.architecture import Transformer
from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.studio.parsing import parse
from mlsys_studio.studio.registry import Call
from mlsys_studio.studio.running import run, to_json
from mlsys_studio.studio.subject import sizes, subject

torch = pytest.importorskip("torch")

PERCEPTRON = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
# One multiply-add is 2 FLOP; the input needs no gradient: 3 rows through 8x16 and 16x4.
FORWARD = 2 * 3 * (8 * 16 + 16 * 4)
BACKWARD = 2 * 3 * (8 * 16 + 2 * 16 * 4)


GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 99, "n_positions": 32}


def call(**namespace: Any) -> Call:
    return Call("magic", namespace, None, print)


def answer(line: str, **namespace: Any) -> Any:
    return run(parse(shlex.split(line), "%mlsys"), call(**namespace))


def refused(line: str, **namespace: Any) -> str:
    with pytest.raises(UsageError) as caught:
        answer(line, **namespace)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_word_is_first_the_users_own_object():
    assert subject(["net"], call(net=PERCEPTRON)) is PERCEPTRON
    assert subject(["nets['small'][0]"], call(nets={"small": [PERCEPTRON]})) is PERCEPTRON
    found = subject(["llama-3-8b"], call(llama=PERCEPTRON))  # no subtraction of theirs
    assert isinstance(found, Transformer)
    assert found.hidden == 4096


def test_a_word_may_be_a_config_or_sizes():
    written = SimpleNamespace(to_dict=lambda: GPT2)
    for words, names in ((["config"], {"config": written}), (["name"], {"name": "gpt2"})):
        assert isinstance(subject(words, call(**names)), Transformer)
    built = subject(["hidden=64", "layers=2", "heads=4", "vocab=99", "gated=true", "mlp_width=100"], call())
    assert isinstance(built, Transformer)
    assert (built.hidden, built.layers, built.vocab) == (64, 2, 99)


def test_a_module_with_a_config_is_known_by_its_sizes():
    class Pretrained(torch.nn.Module):
        config = SimpleNamespace(to_dict=lambda: GPT2)

    assert sizes(["net"], call(net=Pretrained())).hidden == 64


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("transformer net", "net is a module without a config"),
        ("transformer number", "number is a int"),
        ("transformer llama-3-8b gpt2", "give one model"),
        ("transformer hidden=64", "layers, heads, vocab is missing"),
        ("transformer hidden=64 layers=2 heads=4 vocab=99 hidden=32", "hidden is given more than once"),
        ("transformer hidden=64 layers=2 heads=4 vocab=99 colour=3", "colour"),
        ("transformer nobody-has-this", "no preset is called 'nobody-has-this'"),
        ("flops gpt2 --inputs net", "known by its sizes"),
        ("flops net --sequence 12", "live model"),
        ("flops net --inputs (3,8) --batch 7", "--batch is for presets"),
        ("memory net --inputs (3,8) --batch 7", "--batch is for presets"),
        ("memory net --inputs (3,8) --zero 3 --dp 8", "--zero is for presets"),
        ("memory net --inputs (3,8) --tp 2", "--tp is for presets"),
        ("memory net --inputs (3,8) --mode inference", "--mode is for presets"),
        ("memory net --inputs (3,8) --device H100-SXM5-80GB", "--device is for presets"),
        ("memory net --inputs (3,8) --no-flash", "--no-flash is for presets"),
        ("memory sparse --inputs (1,2)", "sparse tensor"),
        ("memory lazy --inputs (1,2)", "run a lazy one once"),
        ("flops net --inputs (99999999999999999999,8)", "is no input"),
        ("flops net --inputs (3.0,8)", "(3.0, 8) is no shape"),
        ("mfu llama-3-8b --sequence 8192 --device H100-SXM5-80GB --tokens-per-second 1e9", "of the peak"),
        (
            "mfu llama-3-8b --sequence 8192 --device H100-SXM5-80GB --tflops 2e3",
            "(2.00 PFLOP/s) is 202.1 % of the peak",
        ),
        ("mfu llama-3-8b --sequence 8192 --device H100-SXM5-80GB --mfu 1.01", "mfu=1.01 is 101.0 % of the peak"),
        ("mfu llama-3-8b --sequence 8192 --device H100-SXM5-80GB", "give exactly one of"),
        ("mfu llama-3-8b --sequence 8192 --device H1000 --tokens-per-second 1", "no spec for device 'H1000'"),
        ("mfu llama-3-8b --sequence 8192 --device V100-SXM2-32GB --tokens-per-second 1", "bfloat16"),
        ("mfu llama-3-8b --sequence -1 --device H100-SXM5-80GB --tokens-per-second 1", "-1"),
        ("mfu llama-3-8b --sequence 8192 --convention mine --device H100-SXM5-80GB --tokens-per-second 1", "'mine'"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(line, says):
    sparse, lazy = torch.nn.Embedding(9, 4, sparse=True), torch.nn.LazyLinear(4)
    assert says in refused(line, net=PERCEPTRON, number=3, sparse=sparse, lazy=lazy)


def test_flops_of_an_object_are_those_of_its_layers():
    """Witness: the closed form above."""
    found = answer("flops net --inputs x", net=PERCEPTRON, x=torch.zeros(3, 8))
    assert (found.forward, found.backward) == (FORWARD, BACKWARD)
    assert answer("flops net --inputs x --forward", net=PERCEPTRON, x=torch.zeros(3, 8)).backward == 0
    assert answer("flops net --inputs (3,8)", net=PERCEPTRON).forward == FORWARD
    assert answer("flops net --inputs (x,)", net=PERCEPTRON, x=torch.zeros(3, 8)).forward == FORWARD
    assert answer("flops net --inputs dict(input=x)", net=PERCEPTRON, x=torch.zeros(3, 8)).forward == FORWARD


def test_mfu_is_torchtitans():
    """Witness: the published 33 % of torchtitan's Llama-3.1-8B on 8 H100 (5,762 tokens/s a GPU, 8,192 tokens)."""
    line = "mfu llama-3-8b --sequence 8192 --device H100-SXM5-80GB --devices 8 --convention torchtitan"
    found = answer(f"{line} --tokens-per-second {5762 * 8}")
    assert found.run.mfu == pytest.approx(0.33, rel=0.03)
    assert found.by_convention["torchtitan"] == pytest.approx(found.run.mfu)
    back = answer(f"{line} --mfu {found.run.mfu}")
    assert back.run.tokens_per_second == pytest.approx(5762 * 8)


def test_json_holds_the_figures():
    """Witness: the published parameter count of Llama-3.1-8B."""
    assert json.loads(to_json(answer("transformer llama-3-8b")))["parameters"]["total"] == 8_030_261_248


def test_sliders_recompute():
    pytest.importorskip("ipywidgets")
    box = answer("transformer gpt2 --sequence 512 --sliders")
    before = str(box.answer)
    box.controls["batch"].value = 2
    assert str(box.answer) != before


def test_sizes_need_no_torch():
    code = (
        "import sys; from mlsys_studio.studio.command import main;"
        "main(['transformer', 'llama-3-405b', '--json']);"
        "assert 'torch' not in sys.modules, 'torch'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_memory_of_sizes_and_of_an_object():
    """Witness: 16 bytes a parameter of Llama-3.1-8B, over 8 ranks under ZeRO-3; 4 bytes of 212 parameters."""
    found = answer("memory llama-3-8b --sequence 128 --dp 8 --zero 3")
    states = found.parts.weights + found.parts.gradients + found.parts.master + found.parts.optimizer
    assert states == pytest.approx(16 * 8_030_261_248 / 8, rel=1e-6)
    assert answer("memory net --inputs x", net=PERCEPTRON, x=torch.zeros(3, 8)).weights == 4 * 212


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("memory llama-3-8b", "--sequence 4096"),
        ("memory llama-3-8b --sequence 8 --tp 3", "3"),
        ("memory llama-3-8b --sequence 8 --zero 4", "ZeRO has stages 0 to 3"),
        ("memory llama-3-8b --sequence 8 --dp -2", "dp must be a whole number"),
        ("memory llama-3-8b --sequence 8 --pp 64", "64"),
        ("memory llama-3-8b --sequence 8 --optimizer magic", "'magic'"),
        ("memory llama-3-8b --sequence 8 --run", "live model"),
        ("memory net --sequence 8", "live model"),
    ],
)
def test_memory_refuses_in_one_sentence(line, says):
    assert says in refused(line, net=PERCEPTRON)


def test_inference_reads_each_weight_once_a_token():
    """Witness: 16 bits of Llama-2-7B's 6.74 B parameters, less its embedding, over an A100's published 2.039 TB/s."""
    found = answer("inference llama-2-7b --device A100-SXM4-80GB --prompt 1 --output 1")
    bytes_read = 2 * (6_738_415_616 - 32_000 * 4096)
    assert found.tpot == pytest.approx(bytes_read / 2.039e12, rel=0.01)


def test_a_residual_network_is_counted_by_its_name():
    """Witness: FlopCounterMode on torchvision's; a name of the notebook's comes first."""
    assert answer("flops ResNet-50").forward == 8_178_368_512
    assert answer("flops resnet50 --batch 2").training == 2 * 24_299_077_632
    assert answer("flops resnet50 --inputs (3,8)", resnet50=PERCEPTRON).forward == FORWARD


def test_what_a_layout_is_asked_for_reaches_the_estimate():
    """Witness: the fields of the estimate's own setting."""
    line = (
        "memory llama-3-8b --sequence 4096 --tp 2 --pp 4 --sequence-parallel --schedule interleaved --chunks 2 --fused"
    )
    setting = answer(f"{line} --micro-batches 8").setting
    layout = setting.layout
    assert (layout.sequence_parallel, layout.schedule, layout.chunks) == (True, "interleaved", 2)
    assert setting.kernels.fused and setting.micro_batches == 8
    assert answer("memory llama-3-8b --sequence 4090 --mode inference --block 16").parts.cache == 4096 * 131_072


def test_a_run_that_fails_is_planned_for():
    line = "plan gpt2 --device H100-SXM5-80GB --devices 8 --batch 64 --sequence 1024"
    assert "goodput" in str(answer(f"{line} --mtbf 50000 --write 30 --restart 600"))
    assert "goodput" not in str(answer(line))


def test_a_plan_names_its_layouts_and_fits():
    found = answer("plan llama-3-8b --device H100-SXM5-80GB --devices 8 --batch 64 --sequence 8192")
    assert all(choice.layout.devices == 8 for choice in found.best)
    assert all(choice.memory < 80e9 for choice in found.best)
    assert json.loads(to_json(found))["best"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("inference llama-3-8b --device H1000", "no spec for device 'H1000'"),
        ("inference bert-base --device H100-SXM5-80GB", "token by token"),
        ("inference llama-3-8b --device H100-SXM5-80GB --prompt 0", "prompt"),
        ("inference llama-3-8b --device V100-SXM2-32GB", "bfloat16"),
        ("inference llama-3-8b --device H100-SXM5-80GB --efficiency 1.2", "1.2"),
        ("plan llama-3-8b --device H100-SXM5-80GB --devices 64 --batch 64 --sequence 8192", "--inter|inter="),
        ("plan llama-3-405b --device H100-SXM5-80GB --devices 8 --batch 64 --sequence 8192", "fit"),
        ("plan llama-3-8b --device H100-SXM5-80GB --devices 12 --batch 64 --sequence 8192", "12 devices"),
        ("plan llama-3-8b --device H100-SXM5-80GB --devices 8 --batch 0 --sequence 8192", "0"),
        ("plan gpt2 --device H100-SXM5-80GB --devices 8 --batch 8 --sequence 64 --mtbf 5e4", "also needs --write and"),
        ("flops resnet-50 --sequence 8", "known by its sizes, on 224 x 224 pixels"),
    ],
)
def test_inference_and_plan_refuse_in_one_sentence(line, says):
    assert any(each in refused(line) for each in says.split("|"))


@pytest.mark.parametrize(
    "line",
    [
        "memory gpt2 --sequence 512",
        "memory gpt2 --sequence 512 --mode inference",
        "inference gpt2 --device H100-SXM5-80GB --prompt 256",
        "plan gpt2 --device H100-SXM5-80GB --devices 8 --batch 64 --sequence 1024",
    ],
)
def test_every_sliders_first_move_computes_or_says_why(line):
    pytest.importorskip("ipywidgets")
    box = answer(f"{line} --sliders")
    first = str(box.answer)
    for control in box.controls.values():
        chosen = control.value
        control.value = next(value for _, value in reversed(control.options) if value != chosen)
        assert str(box.answer) != first, control.description
        control.value = chosen
        assert str(box.answer) == first
