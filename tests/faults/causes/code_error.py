"""The program is wrong: shapes, devices, dtypes, arguments, autograd, API use."""

from __future__ import annotations

from fault import Stage, faults_of

fault = faults_of("code_error")

# A small training program; what goes wrong is written into MODEL, BATCH and STEP.
LOOP = """
import torch
from torch import nn
from torch.nn import functional as F

WIDTH, BATCH, CLASSES = $width, $batch, $classes

{model}

def batches():
    for step in range(6):
        {batch}

def training_step(model, batch, step):
    {step}

def main():
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step, batch in enumerate(batches()):
        loss = training_step(model, batch, step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        log.info("step %d loss %.4f", step, loss.item())

if __name__ == "__main__":
    main()
"""
MLP = """class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(WIDTH, 2 * WIDTH)
        self.head = nn.Linear(2 * WIDTH, CLASSES)

    def forward(self, x):
        return self.head(F.gelu(self.up(x)))"""
GOOD_BATCH = "yield torch.randn(BATCH, WIDTH), torch.randint(0, CLASSES, (BATCH,))"
GOOD_STEP = "x, y = batch; return F.cross_entropy(model(x), y)"


def loop(model: str = MLP, batch: str = GOOD_BATCH, step: str = GOOD_STEP) -> str:
    return LOOP.format(model=model, batch=batch, step=step)


fault(
    "shape_mismatch",
    "linear",
    loop(model=MLP.replace("nn.Linear(2 * WIDTH, CLASSES)", "nn.Linear(WIDTH, CLASSES)")),
    says=("RuntimeError: mat1 and mat2 shapes cannot be multiplied",),
    because="the head is built for WIDTH features and receives 2 WIDTH",
    fix="make the head's in_features 2 * WIDTH",
    exit=1,
    fast=True,
)
fault(
    "shape_mismatch",
    "broadcast",
    loop(step="x, y = batch; mask = torch.ones(WIDTH + 1); return model(x * mask).sum()"),
    says=("must match the size of tensor b", "at non-singleton dimension"),
    because="a mask of WIDTH + 1 is multiplied with rows of WIDTH",
    exit=1,
)
fault(
    "shape_mismatch",
    "view",
    loop(step="x, y = batch; return F.cross_entropy(model(x.view(BATCH, 5, WIDTH // 4)).mean(1), y)"),
    says=("RuntimeError: shape '[", "is invalid for input of size"),
    because="a view asks for more elements than the tensor has",
    exit=1,
)
fault(
    "shape_mismatch",
    "conv_channels",
    """
import torch
from torch import nn

net = nn.Sequential(nn.Conv2d(3, $width, 3, padding=1), nn.ReLU(), nn.Conv2d($width, $classes, 1))
for step in range(5):
    images = torch.randn($batch, 3 if step < $fail_at else 1, 16, 16)
    loss = net(images).square().mean()
    loss.backward()
    log.info("step %d loss %.4f", step, loss.item())
""",
    says=("RuntimeError: Given groups=1, weight of size", "to have 3 channels, but got 1 channels"),
    because="a batch of grey images reaches a convolution of three channels",
    draws={"fail_at": (1, 2, 3)},
    exit=1,
)
fault(
    "shape_mismatch",
    "attention_heads",
    """
import torch
from torch.nn import functional as F

def attend(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)

q = torch.randn($batch, 4, 16, $width)
k = v = torch.randn($batch, 4, 16, $width + 8)
log.info("prefill of %d sequences", $batch)
attend(q, k, v)
""",
    says=("RuntimeError", "scaled_dot_product_attention"),
    because="queries and keys have different head sizes",
    exit=1,
)
fault(
    "wrong_device",
    "meta_weights",
    """
import torch
from torch import nn

with torch.device("meta"):
    model = nn.Sequential(nn.Linear($width, $width), nn.ReLU(), nn.Linear($width, $classes))
log.info("built %d parameters", sum(p.numel() for p in model.parameters()))
out = model(torch.randn($batch, $width))
log.info("logits %s", out.argmax(-1).tolist())
""",
    says=("is not on the expected device",),
    because="the weights are still on device meta while the batch is on the CPU",
    exit=1,
)
fault(
    "wrong_device",
    "meta_copied_out",
    """
import torch
from torch import nn

with torch.device("meta"):
    model = nn.Linear($width, $classes)
log.info("moving model to cpu")
model.to("cpu")
""",
    says=("NotImplementedError: Cannot copy out of meta tensor; no data!",),
    because="a module on meta is moved with .to() instead of to_empty()",
    exit=1,
)
fault(
    "wrong_dtype",
    "half_weights",
    loop(step="x, y = batch; model.half(); return F.cross_entropy(model(x), y)"),
    says=("RuntimeError: mat1 and mat2 must have the same dtype",),
    because="the model is half precision, the batch single",
    exit=1,
)
fault(
    "wrong_dtype",
    "float_token_ids",
    """
import torch
from torch import nn

table = nn.Embedding(1000, $width)
for step in range(3):
    ids = torch.randint(0, 1000, ($batch, 16)).float() if step else torch.randint(0, 1000, ($batch, 16))
    log.info("step %d hidden %.4f", step, table(ids).mean().item())
""",
    says=("Expected tensor for argument #1 'indices' to have one of the following scalar types: Long, Int",),
    because="token ids are floating point",
    exit=1,
)
fault(
    "wrong_dtype",
    "float_targets",
    loop(batch="yield torch.randn(BATCH, WIDTH), torch.randint(0, CLASSES, (BATCH,)).float()"),
    says=("expected target dtype to be Long or Byte, but got Float",),
    because="class targets are floating point",
    exit=1,
)
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
    "autograd_no_grad",
    "no_grad_forward",
    loop(step="x, y = batch; torch.set_grad_enabled(step < $fail_at); return F.cross_entropy(model(x), y)"),
    says=("RuntimeError: element 0 of tensors does not require grad and does not have a grad_fn",),
    because="gradients are switched off before the forward pass",
    exit=1,
)
fault(
    "autograd_no_grad",
    "all_frozen",
    loop(step="x, y = batch; model.requires_grad_(False); return F.cross_entropy(model(x), y)"),
    says=("RuntimeError: element 0 of tensors does not require grad and does not have a grad_fn",),
    because="every parameter is frozen",
    exit=1,
)
fault(
    "inplace_modification",
    "saved_activation",
    loop(
        model=MLP.replace(
            "return self.head(F.gelu(self.up(x)))", "h = torch.sigmoid(self.up(x)); y = self.head(h); h += 1; return y"
        )
    ),
    says=(
        "RuntimeError: one of the variables needed for gradient computation has been modified by an inplace operation",
    ),
    because="an activation that backward needs is changed in place",
    exit=1,
)
fault(
    "inplace_modification",
    "leaf_weight",
    loop(
        step="x, y = batch; model.up.weight.add_(1.0) if step == $fail_at else None; return F.cross_entropy(model(x), y)"
    ),
    says=("RuntimeError: a leaf Variable that requires grad is being used in an in-place operation",),
    because="a parameter is changed in place outside no_grad",
    exit=1,
)
fault(
    "ddp_unused_parameters",
    "skipped_branch",
    """
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear($width, $width), nn.Linear($width, $width)

    def forward(self, x, both):
        return self.b(self.a(x)) if both else self.a(x)

dist.init_process_group("gloo")
model = DistributedDataParallel(Net())
for step in range(6):
    loss = model(torch.randn($batch, $width), both=step < $fail_at).square().mean()
    loss.backward()
    log.info("step %d loss %.4f", step, loss.item())
""",
    says=("RuntimeError: Expected to have finished reduction in the prior iteration before starting a new one",),
    because="one branch gets no gradient and find_unused_parameters is off",
    stage=Stage(command="torchrun --standalone --nproc-per-node 2 --log-dir logs --tee 3 $script"),
    exit=1,
    ranks=2,
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
