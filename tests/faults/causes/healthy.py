"""Runs of the frameworks in which nothing fails; the traps among them look as if something did.

`cause` is the taxonomy's kind of health. All of them end with exit code 0, but for one that is cancelled after it has
finished.
"""

from __future__ import annotations

from fault import Stage, faults_of

healthy = faults_of("healthy")


def run(cause: str, name: str, script: str, says: tuple[str, ...], *, trap: bool = False, **rest) -> None:
    rest = {"exit": 0, "hard": "healthy_trap" if trap else None, "because": "the run ends as it should", **rest}
    healthy(cause, name, script, says=says, **rest)


# ---- Hugging Face ------------------------------------------------------------------------------------------------

HF = """
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments{imports}

config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=100)
rows = [dict(input_ids=torch.randint(0, 100, (12,)), labels=i % 2) for i in range(64)]
options = dict(max_steps=$steps, logging_steps=2, use_cpu=True, report_to=[], per_device_train_batch_size=$batch, save_strategy="no")
arguments = TrainingArguments("out", **(options | dict({options})))
trainer = Trainer(BertForSequenceClassification(config), arguments, train_dataset=rows, eval_dataset=rows[:16]{extra})
trainer.train({train})
{after}log.info("training finished")
"""


def hugging_face(
    name: str,
    options: str = "",
    *,
    trap: bool = False,
    cause: str = "finished_ok",
    says: tuple[str, ...] = ("training finished",),
    imports="",
    extra="",
    train="",
    after="",
) -> None:
    script = HF.format(options=options, imports=imports, extra=extra, train=train, after=after)
    run(cause, f"hf_{name}", script, says, trap=trap, draws={"steps": (6, 8, 10)})


hugging_face("plain")
hugging_face("no_bar", "disable_tqdm=True")
hugging_face("evaluates", 'eval_strategy="steps", eval_steps=3')
hugging_face("accumulates", "gradient_accumulation_steps=2")
hugging_face("cosine", 'lr_scheduler_type="cosine", warmup_steps=2')
hugging_face("saves", 'save_strategy="steps", save_steps=4, save_total_limit=1')
hugging_face("resumes", 'save_strategy="steps", save_steps=2', after="trainer.train(resume_from_checkpoint=True)\n")
hugging_face(
    "nan_metric",
    'eval_strategy="steps", eval_steps=3',
    extra=', compute_metrics=lambda p: {"auc_rare_class": float("nan"), "accuracy": 0.5}',
    cause="nan_metric_benign",
    says=("nan", "training finished"),
    trap=True,
)
hugging_face(
    "early_stopping",
    'eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2, load_best_model_at_end=True, metric_for_best_model="eval_loss", learning_rate=0.0',
    imports=", EarlyStoppingCallback",
    extra=", callbacks=[EarlyStoppingCallback(1)]",
)

# ---- Lightning -------------------------------------------------------------------------------------------------------

LIGHTNING = """
import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset
{imports}
class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear($width, 1)

    def training_step(self, batch, index):
        loss = self.head(batch[0]).square().mean()
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, index):
        self.log("val_loss", {metric}, prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)

rows = DataLoader(TensorDataset(torch.randn(64, $width)), batch_size=$batch)
trainer = L.Trainer(accelerator="cpu", logger=False, **(dict(max_epochs=3, enable_checkpointing=False) | dict({options})))
trainer.fit(Net(), rows, rows)
log.info("fit finished after %d epochs", trainer.current_epoch)
"""


def lightning(
    name: str,
    options: str = "",
    *,
    trap=False,
    cause="finished_ok",
    says=("fit finished",),
    imports="",
    metric="self.head(batch[0]).square().mean()",
) -> None:
    run(cause, f"lightning_{name}", LIGHTNING.format(options=options, imports=imports, metric=metric), says, trap=trap)


lightning("plain")
lightning("no_bar", "enable_progress_bar=False")
lightning("checkpoints", 'enable_checkpointing=True, default_root_dir="out"')
lightning("accumulates", "accumulate_grad_batches=2")
lightning("nan_metric", metric='float("nan")', cause="nan_metric_benign", trap=True)
lightning("limits", "limit_train_batches=2, limit_val_batches=1")
lightning(
    "early_stop",
    'callbacks=[EarlyStopping("val_loss", patience=1, min_delta=1e9, verbose=True)]',
    imports="from lightning.pytorch.callbacks import EarlyStopping\n",
)
lightning(
    "time_budget",
    'max_epochs=10_000, max_time="00:00:00:03", enable_progress_bar=False',
    says=("Time limit reached", "fit finished"),
    trap=True,
)

# ---- torchrun -------------------------------------------------------------------------------------------------------

RANKS = """
import datetime, os
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=30))
rank, world = dist.get_rank(), dist.get_world_size()
model = DistributedDataParallel(nn.Linear($width, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

def train(steps):
    for step in range(steps):
        loss = model(torch.randn($batch, $width)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        log.info("rank %d step %d loss %.4f", rank, step, loss.item())

{body}
log.info("rank %d finished", rank)
dist.destroy_process_group()
"""


def torchrun(
    name: str,
    body: str,
    *,
    options: str = "",
    trap=False,
    cause="finished_ok",
    says=("rank 0 finished", "rank 1 finished"),
) -> None:
    command = f"torchrun --standalone --nproc-per-node 2 {options} --log-dir logs --tee 3 $script"
    run(
        cause,
        f"torchrun_{name}",
        RANKS.format(body=body),
        says,
        trap=trap,
        stage=Stage(command=command),
        ranks=2,
    )


torchrun("plain", "train(8)")
torchrun("barriers", "train(3)\ndist.monitored_barrier()\ntrain(3)")
torchrun("uneven_join", "with model.join():\n    train(3 + 3 * rank)")
torchrun(
    "restarted",
    'if int(os.environ["TORCHELASTIC_RESTART_COUNT"]) == 0 and rank == 1:\n    raise ConnectionError("metadata service not ready")\ntrain(6)',
    options="--max-restarts 2",
    says=("ConnectionError: metadata service not ready", "rank 0 finished", "rank 1 finished"),
    trap=True,
)
torchrun("slow_rank", "time.sleep(4 * rank)\ntrain(5)", cause="slow_but_working")
torchrun(
    "left_group",
    'train(5)\nlog.warning("rank %d: slow all_reduce, 1.9 s (timeout 1800 s)", rank)',
    trap=True,
    cause="benign_warning",
)
