"""The program is wrong in its tensors: shapes, devices, dtypes, autograd."""

from __future__ import annotations

from fault import Stage, faults_of
from training_loop import MLP, loop

fault = faults_of("code_error")

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
