"""A top-down neck: deep context for the shallow stages, at next to no cost (after Lin et al. 2017, arXiv 1612.03144).

    P_S = relu(norm(l_S(F_S)))
    P_s = relu(norm(l_s(F_s) + up(P_{s+1})))      l_s: a 1x1 convolution to WIDTH channels, up: bilinear, twice as large

`pyramid` has a second layer at each depth, for the class maps alone, as in PYLON (arXiv 2010.11475):

    Q_s = relu(norm(c_s(d_s(P_s))))               d_s: each channel by itself, 3x3; c_s: 1x1

A shallow stage sees a few pixels: alone it cannot tell a nodule from a vessel seen end-on. With the neck its class maps
keep their fine grid and know what the deep stages know. The head is the same, and so is mean(M_k) = z_k - b_k.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 96


class SecondLayer(nn.Sequential):
    """P_s -> Q_s, [B, WIDTH, h_s, w_s] both."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH, bias=False),
            nn.Conv2d(WIDTH, WIDTH, 1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(inplace=True),
        )


class TopDownNeck(nn.Module):
    """F_s [B, C_s, h_s, w_s] -> P_s, with `refine` Q_s, [B, WIDTH, h_s, w_s]; each grid is twice the next one."""

    def __init__(self, channels: Sequence[int], refine: bool = False) -> None:
        super().__init__()
        self.second = nn.ModuleList(SecondLayer() for _ in channels) if refine else None
        self.laterals = nn.ModuleList(nn.Conv2d(c, WIDTH, 1, bias=False) for c in channels)
        self.norms = nn.ModuleList(nn.BatchNorm2d(WIDTH) for _ in channels)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        outputs: list[Tensor] = []
        for lateral, norm, feature in zip(
            reversed(self.laterals), reversed(self.norms), reversed(features), strict=True
        ):
            merged = lateral(feature)
            if outputs:
                merged = merged + F.interpolate(outputs[-1], scale_factor=2, mode="bilinear", align_corners=False)
            outputs.append(F.relu(norm(merged)))
        outputs.reverse()
        if self.second is not None:
            outputs = [layer(output) for layer, output in zip(self.second, outputs, strict=True)]
        return tuple(outputs)
