"""Two ranks over gloo, on this machine alone: they open the window at the same step, and both end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


@pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(), reason="torch has no gloo here"
)
def test_both_ranks_open_the_window_at_the_same_step(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(HERE), "GLOO_SOCKET_IFNAME": "lo"}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(HERE / "distributed_loop.py"), str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    try:
        said = [rank.communicate(timeout=120) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], [err for _, err in said]
    one, two = (json.loads(out.splitlines()[-1]) for out, _ in said)
    assert one["began"] == two["began"] and len(one["began"]) == 2
    assert one["roles"] == two["roles"] and one["roles"][2] == 5
    assert all(["backward", "comm"] in [c[:2] for c in rank["comm"]] for rank in (one, two))  # DDP waits there
