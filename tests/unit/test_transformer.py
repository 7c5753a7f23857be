"""The report on a transformer: figures that agree with one another, in text, JSON and as one sentence when wrong."""

import json
import subprocess
import sys
import unicodedata

import pytest

from mlsys_studio.profilers.calculators.presets import presets
from mlsys_studio.profilers.calculators.transformer import transformer
from mlsys_studio.profilers.errors import UsageError

WHOLE = {
    "device": "H100-SXM5-80GB",
    "devices": 2048,
    "tokens": 14.8e12,
    "power_w": 700,
    "pue": 1.1,
    "kg_per_kwh": 0.4,
    "price_per_device_hour": 2.0,
}


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_shown_within_80_columns(name):
    wide = [line for line in str(transformer(name, recompute="full")).splitlines() if columns(line) > 80]
    assert not wide


def columns(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in line)


def test_deepseek_v3s_run_from_its_published_hours():
    """arXiv:2412.19437, Table 1: 2.664 M H800 hours for 14.8 T tokens; so many GPU-hours come back from the MFU."""
    seconds = 2.664e6 * 3600 / 2048
    fast = transformer("deepseek-v3", sequence=4096, tokens_per_second=14.8e12 / seconds, **WHOLE)
    assert fast.utilization is not None
    run = transformer("deepseek-v3", sequence=4096, mfu=fast.utilization.mfu, **WHOLE).run
    assert run is not None and run.energy_mwh is not None
    assert run.device_hours == pytest.approx(2.664e6, rel=1e-9)
    assert run.energy_mwh == pytest.approx(2.664e6 * 700 * 1.1 / 1e6)
    assert run.co2_tonnes == pytest.approx(run.energy_mwh * 0.4)
    assert run.cost == pytest.approx(5.328e6, rel=1e-9)  # the paper's 5.328 M dollars at 2 an hour


def test_attention_has_the_share_that_the_course_notes_derive():
    """T / (6C + T) of a GPT layer; GPT-3 at 8192 tokens, C = 12288: a tenth."""
    report = transformer(hidden=12288, layers=96, heads=96, vocab=1, sequence=8192, head=False)
    assert report.attention_share == pytest.approx(8192 / (6 * 12288 + 8192), rel=1e-12)


def test_json_has_every_figure_and_its_totals():
    report = transformer("mixtral-8x7b", batch=2, sequence=64, mfu=0.4, recompute="selective", **WHOLE)
    found = json.loads(report.to_json())
    assert report.run is not None
    assert found["parameters"]["total"] == report.parameters.total == 46_702_792_704
    assert found["forward"]["total"] == report.forward.total
    assert found["training"]["hardware"] == report.training.hardware > found["training"]["model"]
    assert found["utilization"]["mfu"] == pytest.approx(0.4)
    assert found["run"]["days"] == report.run.days
    assert found["model"]["source"]


def test_a_model_that_does_not_generate_has_no_decode():
    assert transformer("bert-base").decode is None
    assert transformer("vit-b-16").decode is None
    assert "decode" not in str(transformer("vit-b-16"))
    assert transformer("gpt2").decode is not None


def test_names_from_elsewhere_are_text_and_nothing_else():
    config = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 8, "vocab_size": 9}
    shown = transformer({**config, "_name_or_path": "<script>alert(1)</script>\x1b[2J"})
    assert "\x1b" not in str(shown)
    assert "<script>alert" not in shown._repr_mimebundle_()["text/html"]


@pytest.mark.parametrize(
    "given, said",
    [
        ({"device": "H101", "mfu": 0.4}, "H101"),
        ({"device": "V100-SXM2-32GB", "mfu": 0.4}, "bfloat16"),
        ({"device": "A100-SXM4-80GB", "dtype": "float12", "mfu": 0.4}, "float12"),
        ({"mfu": 0.4}, "device"),
        ({"device": "A100-SXM4-80GB", "mfu": 1.3}, r"130.0 % of the peak"),
        ({"device": "A100-SXM4-80GB", "tokens_per_second": 1e9}, "tokens_per_second=1e"),
        ({"tokens": 1e12}, "speed"),
        ({"power_w": 400}, "tokens"),
        ({"convention": "mfu"}, "palm"),
        ({"recompute": "some"}, "selective"),
        ({"sequence": -1}, "sequence"),
        ({"sequence": 1025}, "1,024 positions"),
        ({"batch": 1.5}, "batch"),
        ({"layers": 3}, "leave out layers"),
        ({"device": "A100-SXM4-80GB", "mfu": 0.4, "devices": 0}, "devices"),
    ],
)
def test_a_wrong_input_is_one_sentence(given, said):
    with pytest.raises(UsageError, match=said) as error:
        transformer("gpt2", **given)
    assert "\n" not in str(error.value)


def test_it_needs_no_torch():
    asked = "mlsys_studio.transformer('gpt2', device='T4', dtype='fp16', mfu=0.3)"
    code = f"import sys, mlsys_studio; {asked}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
