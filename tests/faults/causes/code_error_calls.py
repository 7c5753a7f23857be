"""The program is wrong in what it calls: names, arguments, the order and place of calls."""

from __future__ import annotations

from fault import faults_of
from training_loop import MLP, loop

fault = faults_of("code_error")

fault(
    "invalid_argument",
    "no_parameters",
    """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear($width, $width) for _ in range(4)]

model = Net()
log.info("optimizer for %s", type(model).__name__)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
""",
    says=("ValueError: optimizer got an empty parameter list",),
    because="layers in a plain list are no parameters of the module",
    exit=1,
)
fault(
    "invalid_argument",
    "negative_lr",
    loop().replace("lr=1e-3", "lr=-1e-3"),
    says=("ValueError: Invalid learning rate: -0.001",),
    because="the learning rate is negative",
    exit=1,
)
fault(
    "invalid_argument",
    "unexpected_keyword",
    loop(step="x, y = batch; return F.cross_entropy(model(x, attention_mask=torch.ones(BATCH)), y)"),
    says=(
        "TypeError",
        "got an unexpected keyword argument",
    ),
    because="the model's forward has no such argument",
    exit=1,
)
fault(
    "invalid_argument",
    "missing_positional",
    loop(model=MLP.replace("def forward(self, x):", "def forward(self, x, mask):")),
    says=("TypeError", "missing 1 required positional argument: 'mask'"),
    because="forward needs a mask that the loop does not pass",
    exit=1,
)
fault(
    "api_misuse",
    "backward_twice",
    loop(step="x, y = batch; loss = F.cross_entropy(model(x), y); loss.backward(); return loss"),
    says=("RuntimeError: Trying to backward through the graph a second time",),
    because="backward is called twice on one graph",
    exit=1,
)
fault(
    "api_misuse",
    "backward_of_vector",
    loop(step="x, y = batch; return F.cross_entropy(model(x), y, reduction='none')"),
    says=("RuntimeError: grad can be implicitly created only for scalar outputs",),
    because="the loss was not reduced",
    exit=1,
)
fault(
    "api_misuse",
    "numpy_of_grad",
    loop(step="x, y = batch; scores = model(x).numpy(); return F.cross_entropy(model(x), y)"),
    says=("RuntimeError: Can't call numpy() on Tensor that requires grad",),
    because="a tensor of the graph is turned to numpy without detach",
    exit=1,
)
fault(
    "api_misuse",
    "pickled_lambda",
    """
import torch
from torch.utils.data import DataLoader, Dataset

class Rows(Dataset):
    def __init__(self, transform):
        self.transform = transform

    def __len__(self):
        return 64

    def __getitem__(self, index):
        return self.transform(torch.full(($width,), float(index)))

def loader():
    return DataLoader(Rows(lambda row: row / 64), batch_size=$batch, num_workers=2, multiprocessing_context="spawn")

if __name__ == "__main__":
    log.info("starting workers")
    for step, rows in enumerate(loader()):
        log.info("step %d %s", step, tuple(rows.shape))
""",
    says=("Can't pickle", "<lambda>"),
    because="a lambda cannot be sent to a spawned worker",
    exit=1,
)
fault(
    "api_misuse",
    "no_main_guard",
    """
import torch
from torch.utils.data import DataLoader, TensorDataset

data = TensorDataset(torch.randn(64, $width))
for step, (rows,) in enumerate(DataLoader(data, batch_size=$batch, num_workers=1, multiprocessing_context="spawn")):
    log.info("step %d", step)
""",
    says=("bootstrapping phase", "if __name__ == '__main__':"),
    because="the script starts processes when its own children import it",
    exit=1,
)
fault(
    "api_misuse",
    "grad_scaler_order",
    """
import torch
from torch import nn

model = nn.Linear($width, $classes)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
scaler = torch.amp.GradScaler("cpu")
for step in range(4):
    with torch.autocast("cpu", dtype=torch.float16):
        loss = model(torch.randn($batch, $width)).float().square().mean()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    log.info("step %d loss %.4f", step, loss.item())
""",
    says=("RuntimeError: unscale_() has already been called on this optimizer since the last update()",),
    because="gradients are unscaled twice in one step",
    exit=1,
)
fault(
    "api_misuse",
    "scheduler_overrun",
    loop(
        step=(
            "x, y = batch; s = globals().setdefault('S', torch.optim.lr_scheduler.OneCycleLR("
            "torch.optim.SGD(model.parameters(), lr=.1), .1, total_steps=$fail_at)); s.step(); "
            "return F.cross_entropy(model(x), y)"
        )
    ),
    says=("ValueError: Tried to step", "The specified number of total steps is"),
    because="the one-cycle schedule was built for fewer steps than the loop has",
    exit=1,
)
fault(
    "api_misuse",
    "lightning_no_training_step",
    """
import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear($width, 1)

    def train_step(self, batch, index):
        return self.head(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

rows = DataLoader(TensorDataset(torch.randn(32, $width)), batch_size=$batch)
L.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False).fit(Net(), rows)
""",
    says=("MisconfigurationException: No `training_step()` method defined",),
    because="the hook is called training_step, not train_step",
    exit=1,
)
fault(
    "api_misuse",
    "trainer_without_loss",
    """
import torch
from transformers import BertConfig, BertModel, Trainer, TrainingArguments

rows = [{"input_ids": torch.ones(8, dtype=torch.long)} for _ in range(16)]
model = BertModel(BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64))
arguments = TrainingArguments("out", max_steps=4, use_cpu=True, report_to=[], per_device_train_batch_size=$batch)
Trainer(model, arguments, train_dataset=rows).train()
""",
    says=("ValueError: The model did not return a loss from the inputs",),
    because="a headless model is trained: it cannot return a loss",
    exit=1,
)
fault(
    "name_or_syntax_error",
    "undefined_name",
    loop(step="x, y = batch; return F.cross_entropy(modle(x), y)"),
    says=("NameError: name 'modle' is not defined",),
    because="a misspelt variable",
    exit=1,
)
fault(
    "name_or_syntax_error",
    "unclosed_bracket",
    loop(step="x, y = batch; return F.cross_entropy(model(x, y)"),
    says=("SyntaxError: '(' was never closed",),
    because="a bracket is not closed",
    exit=1,
)
fault(
    "name_or_syntax_error",
    "indentation",
    """
import torch

def main():
    model = torch.nn.Linear($width, $classes)
      print(model)

main()
""",
    says=("IndentationError: unexpected indent",),
    because="a line is indented too far",
    exit=1,
)
fault(
    "name_or_syntax_error",
    "missing_attribute",
    loop(model=MLP.replace("self.head(F.gelu", "self.classifier(F.gelu")),
    says=("AttributeError: 'Net' object has no attribute 'classifier'",),
    because="the layer is called head",
    exit=1,
)
fault(
    "name_or_syntax_error",
    "none_attribute",
    """
import torch

class Cache:
    def get(self, key):
        return None

def warm(cache, key):
    return cache.get(key).to("cpu")

log.info("warming cache for %s", "$run")
warm(Cache(), "$run")
""",
    says=("AttributeError: 'NoneType' object has no attribute 'to'",),
    because="the program does not expect the None its own cache returns",
    exit=1,
)
fault(
    "api_misuse",
    "endless_recursion",
    """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear($width, $width)

    def forward(self, x):
        return self(self.inner(x))

log.info("forward of %d rows", $batch)
Block()(torch.randn($batch, $width))
""",
    says=("RecursionError: maximum recursion depth exceeded",),
    enough=("RecursionError: maximum recursion depth exceeded",),
    because="forward calls the module itself",
    exit=1,
)
