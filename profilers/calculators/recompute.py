"""Activation recomputation: what is thrown away after the forward and computed again in the backward.

"none"       everything the backward needs is kept
"selective"  what takes much memory and little time: the attention's scores and their softmax (Korthikanti et al. 2022,
             arXiv:2205.05198, section 5); with fused kernels also the MLP's activation from its inputs (DeepSeek-V3,
             arXiv:2412.19437, 3.3.3), which is all there is with flash attention
"full"       only each layer's input is kept, and the whole layer runs again
"""

from typing import Literal

Recompute = Literal["none", "selective", "full"]
