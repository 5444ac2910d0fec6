"""How many directions a set of vectors uses, from their covariance.

With p the eigenvalues of the covariance over their sum: the effective rank is exp(-sum p ln p),
the participation ratio 1 / sum p^2. They are the exponentials of the Renyi entropies of order 1
and 2, so the ratio is never the larger; both are k for k equal directions. Over N tokens, white
noise in F directions has a participation ratio of about F / (1 + F/N).
Source: Roy & Vetterli 2007, "The effective rank" (there of singular values, here of variances);
Gao et al. 2017, "A theory of multineuronal dimensionality, dynamics and measurement".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Directions in use, between 1 and the width; None where nothing varies."""

    participation_ratio: float | None
    effective_rank: float | None


def measure_spectrum(covariance_FF: Tensor) -> Spectrum:
    """Participation ratio and effective rank of a symmetric matrix in fp64."""
    if not bool(covariance_FF.isfinite().all()):
        return Spectrum(participation_ratio=None, effective_rank=None)
    values = torch.linalg.eigvalsh(covariance_FF.cpu()).clamp(min=0.0)
    total = values.sum()
    if total <= 0:
        return Spectrum(participation_ratio=None, effective_rank=None)
    p = values / total
    entropy = -torch.special.xlogy(p, p).sum()
    return Spectrum(participation_ratio=1.0 / p.square().sum().item(), effective_rank=entropy.exp().item())
