"""Hugging Face's Trainer, Lightning and Accelerate, unmodified. Witness: the steps they count themselves."""

from __future__ import annotations

import logging

import pytest
import torch
import torch.nn.functional as F
from profiled import profiled, quick, whole  # noqa: F401  quick is a fixture
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

pytestmark = pytest.mark.usefixtures("quick")

STEPS = 60


class Tokens(Dataset):
    def __len__(self) -> int:
        return 4 * STEPS

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        words = torch.arange(i, i + 12) % 64
        return {"input_ids": words, "labels": words}


def language_model(kind: str) -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="transformers is a test extra")
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=64, n_positions=16, n_embd=16, n_layer=2, n_head=2)
        return transformers.GPT2LMHeadModel(config)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=16,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("gpt2", {}),
        ("llama", {"gradient_accumulation_steps": 2, "gradient_checkpointing": True}),
        ("gpt2", {"bf16": True, "logging_steps": 1, "disable_tqdm": False}),
    ],
    ids=["plain", "accumulation and recomputation", "bf16 and logging"],
)
def test_the_hugging_face_trainer(kind, options, tmp_path, capfd):
    transformers = pytest.importorskip("transformers", reason="transformers is a test extra")
    pytest.importorskip("accelerate", reason="accelerate is a test extra")
    model = language_model(kind)
    steps = STEPS // options.get("gradient_accumulation_steps", 1)
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=4, num_train_epochs=1, save_strategy="no", use_cpu=True,
        report_to="none", **({"disable_tqdm": True, "logging_strategy": "no" if "logging_steps" not in options else "steps"} | options),
    )  # fmt: skip
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=Tokens())
    with profiled(model) as run:
        trainer.train()
    assert trainer.state.global_step == steps
    found = whole(run.profile, steps)
    assert found.steps.unit.startswith("optimizer step")
    assert found.loop is not None and found.loop.model == type(model).__name__
    assert found.loop.workers == 0 and found.loop.loader == "Tokens"
    if "logging_steps" in options:
        assert found.steps.phases["logging"] > 0
    if "gradient_checkpointing" in options and found.ledger is not None:
        assert found.ledger.nanoseconds("recompute") > 0


@pytest.mark.parametrize("bar", [False, True], ids=["silent", "progress bar"])
def test_lightning(bar, tmp_path, capfd):
    lightning = pytest.importorskip("lightning", reason="lightning is a test extra")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    counted = []

    class Small(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))

        def training_step(self, batch, index):
            counted.append(index)
            x, y = batch
            loss = F.cross_entropy(self.net(x), y)
            self.log("loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters())

    model = Small()
    data = TensorDataset(torch.randn(4 * STEPS, 16), torch.randint(0, 4, (4 * STEPS,)))
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=bar,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    with profiled(model) as run:
        trainer.fit(model, DataLoader(data, batch_size=4))
    assert trainer.global_step == len(counted) == STEPS
    found = whole(run.profile, STEPS)
    assert found.steps.unit == "optimizer step (AdamW)"
    assert found.loop is not None and found.loop.loader == "TensorDataset"


def test_an_accelerate_loop():
    accelerate = pytest.importorskip("accelerate", reason="accelerate is a test extra")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    data = TensorDataset(torch.randn(8 * STEPS, 16), torch.randint(0, 4, (8 * STEPS,)))
    model, optimizer, loader = accelerator.prepare(net, torch.optim.AdamW(net.parameters()), DataLoader(data, 4))
    scheduler = accelerator.prepare(torch.optim.lr_scheduler.ConstantLR(optimizer))
    stepped = 0
    with profiled(net) as run:
        for x, y in loader:
            with accelerator.accumulate(model):
                accelerator.backward(F.cross_entropy(model(x), y))
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
                stepped += accelerator.sync_gradients
    assert stepped == STEPS
    found = whole(run.profile, STEPS)
    assert found.loop is not None and found.loop.workers == 0 and found.loop.parameters == 16 * 32 + 32 + 32 * 4 + 4
