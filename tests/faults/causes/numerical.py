"""Loss, gradients or logits are no longer finite, or run away. Real small trainings, with the log a person reads."""

from __future__ import annotations

from fault import faults_of

fault = faults_of("numerical")

HEAD = """
import torch
from torch import nn
from torch.nn import functional as F

torch.manual_seed(0)
model = nn.Sequential(nn.Linear($width, $width), nn.Tanh(), nn.Linear($width, $classes))
optimizer = torch.optim.SGD(model.parameters(), lr=$lr)
x, y = torch.randn(64, $width), torch.randint(0, $classes, (64,))
"""

fault(
    "nan_gradients",
    "clip_non_finite",
    HEAD
    + """
for step in range(12):
    loss = F.cross_entropy(model(x), y)
    if step == $fail_at + 3:
        loss = loss + (model[0].weight[0, 0] * 0).sqrt() * 0  # d sqrt(0) is infinite
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)
    optimizer.step()
    optimizer.zero_grad()
    log.info("step %d loss %.4f grad_norm %.4f", step, loss.item(), norm)
""",
    says=("RuntimeError: The total norm of order 2.0 for gradients from `parameters` is non-finite",),
    because="a square root at zero has no finite gradient",
    draws={"lr": (0.1, 0.05)},
    exit=1,
)
fault(
    "nan_gradients",
    "anomaly",
    HEAD
    + """
torch.autograd.set_detect_anomaly(True)
for step in range(9):
    scores = model(x)
    loss = F.cross_entropy(scores, y) if step < $fail_at else ((scores * 0).sum() ** 2).sqrt() * 0 + F.cross_entropy(scores, y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    log.info("step %d loss %.4f", step, loss.item())
""",
    says=("returned nan values in its 0th output",),
    because="backward of a square root at zero gives NaN, and anomaly detection says so",
    draws={"lr": (0.1, 0.05)},
    exit=1,
)
fault(
    "nan_gradients",
    "loss_becomes_nan",
    HEAD
    + """
for step in range(60):
    weights = torch.log(1 - torch.tensor(step / 40)).clamp(max=0) if step < 42 else torch.tensor(float("nan"))
    loss = F.cross_entropy(model(x), y) * (1 + 0 * weights)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    if step % 3 == 0:
        log.info("step %d | loss %.4f | grad_norm %.4f | lr %g", step, loss.item(), norm, $lr)
""",
    says=("loss nan | grad_norm nan",),
    because="the weight of the loss becomes log(0) * 0 at step 40 and NaN stays in the weights",
    draws={"lr": (0.1, 0.05)},
    exit=0,
)
fault(
    "nan_inf_logits",
    "multinomial",
    """
import torch

torch.manual_seed(0)
def sample(step):
    logits = torch.randn($batch, 50) * 10.0 ** (step * 9)
    return torch.multinomial(torch.softmax(logits, -1) if step < $fail_at else logits.exp() / logits.exp().sum(-1, keepdim=True), 1)

for step in range(9):
    log.info("token %d: %s", step, sample(step).flatten().tolist())
""",
    says=("RuntimeError: probability tensor contains either `inf`, `nan` or element < 0",),
    because="exp of huge logits overflows: inf / inf",
    exit=1,
)
fault(
    "nan_inf_logits",
    "categorical",
    """
import torch
from torch.distributions import Categorical

policy = torch.nn.Linear($width, 4)
with torch.no_grad():
    policy.weight[0, 0] = float("inf")
log.info("rollout")
actions = Categorical(logits=policy(torch.randn($batch, $width))).sample()
""",
    says=("ValueError: Expected parameter logits", "but found invalid values"),
    because="an infinite weight makes NaN logits",
    exit=1,
)
fault(
    "nan_inf_logits",
    "fp16_overflow",
    """
import torch

torch.manual_seed(0)
hidden = torch.randn($batch, $width, dtype=torch.float16) * 300
for layer in range(6):
    hidden = hidden @ (torch.randn($width, $width, dtype=torch.float16) * 4)
    log.info("layer %d hidden absmax %s has_inf %s has_nan %s", layer, hidden.abs().max().item(), hidden.isinf().any().item(), hidden.isnan().any().item())
assert torch.isfinite(hidden).all(), "logits contain inf or nan"
""",
    says=("AssertionError: logits contain inf or nan",),
    because="half precision overflows layer by layer",
    exit=1,
)
fault(
    "loss_divergence",
    "rising",
    """
import torch

torch.manual_seed(0)
weight = torch.ones($width, requires_grad=True)
optimizer = torch.optim.SGD([weight], lr=$lr, momentum=0.9)
best = float("inf")
for step in range(400):
    loss = (weight * torch.arange(1, $width + 1)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 2 == 0:
        log.info("step %d train/loss %.4g", step, loss.item())
    best = min(best, loss.item())
    if loss.item() > 1e6 * best:
        raise RuntimeError(f"training diverged: loss {loss.item():.4g} at step {step}, best was {best:.4g}")
""",
    says=("training diverged: loss",),
    because="the step exceeds the stability limit of the quadratic: the loss grows without bound",
    draws={"lr": (0.1, 0.2)},
    exit=1,
)
fault(
    "loss_spike",
    "bad_batch",
    HEAD
    + """
history = []
for step in range(60):
    scale = 3e3 if step == 40 + $fail_at else 1.0
    loss = F.cross_entropy(model(x) * scale, y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    history.append(loss.item())
    mean = sum(history[-20:-1]) / max(1, len(history[-20:-1]))
    log.info("iteration %d | lm loss: %.6E | grad norm: %.3f", step, loss.item(), scale)
    if step > 20 and loss.item() > 20 * mean:
        raise RuntimeError(f"loss spike at iteration {step}: {loss.item():.3f} against a running mean of {mean:.3f}; stopping for inspection")
""",
    says=("loss spike at iteration",),
    because="one batch is scaled three thousandfold",
    draws={"lr": (0.1, 0.05)},
    exit=1,
)
fault(
    "loss_scale_collapse",
    "scaler",
    HEAD
    + """
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**$fail_at)
for step in range(40):
    loss = F.cross_entropy(model(x), y) * float("inf" if step > 2 else 1)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    log.info("step %d: gradient overflow, skipping step, loss scale reduced to %g" if step > 2 else "step %d loss scale %g", step, scaler.get_scale())
    if scaler.get_scale() < 2.0**-12:
        raise FloatingPointError("Current loss scale already at minimum - cannot decrease scale anymore. Exiting run.")
""",
    says=("loss scale reduced to", "cannot decrease scale anymore"),
    because="every gradient overflows: the scaler halves until its floor",
    draws={"lr": (0.1, 0.05), "fail_at": (10, 12, 16)},
    exit=1,
)
fault(
    "learning_rate_too_high",
    "runs_away_at_once",
    HEAD.replace("nn.Tanh()", "nn.ReLU()")
    + """
log.info("optimizer SGD, lr=%g, no warmup", $lr)
for step in range(30):
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    first = loss.item() if step == 0 else first
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1e12)
    optimizer.step()
    optimizer.zero_grad()
    log.info("step %d loss %.4f grad_norm %.4g lr %g", step, loss.item(), norm, $lr)
    if not loss < 1e6:
        raise ValueError(f"loss is {loss.item():.4g} at step {step}, it was {first:.4g} at step 0")
""",
    says=("ValueError: loss is", "no warmup"),
    because="a learning rate tens of thousands of times too high blows the weights up in a few steps",
    draws={"lr": (3e4, 1e5)},
    exit=1,
)
fault(
    "exploding_init",
    "std",
    """
import torch
from torch import nn
from torch.nn import functional as F

torch.manual_seed(0)
layers = []
for _ in range(24):
    layer = nn.Linear($width, $width)
    nn.init.normal_(layer.weight, std=50.0)
    layers += [layer, nn.ReLU()]
model = nn.Sequential(*layers, nn.Linear($width, $classes))
log.info("initialised %d layers, weight std 50.0", 24)
x, y = torch.randn(64, $width), torch.randint(0, $classes, (64,))
for index, layer in enumerate(model):
    x = layer(x)
    if index % 6 == 1:
        log.info("init check: activation std after layer %d: %.4g", index, x.std().item())
loss = F.cross_entropy(x, y)
log.info("step 0 loss %s", loss.item())
assert torch.isfinite(loss), f"loss is {loss.item()} at step 0, before any update"
""",
    says=("at step 0, before any update", "activation std after layer"),
    because="weights of standard deviation 50 multiply through 24 layers",
    exit=1,
)
