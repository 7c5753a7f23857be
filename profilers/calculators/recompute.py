"""Activation recomputation: what is thrown away after the forward and computed again in the backward.

"none"       everything the backward needs is kept
"selective"  the attention's scores and their softmax are recomputed (Korthikanti et al. 2022, arXiv:2205.05198, section 5)
"full"       only each layer's input is kept, and the whole layer runs again
"""

from typing import Literal

Recompute = Literal["none", "selective", "full"]
