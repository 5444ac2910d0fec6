"""Held-out loss, perplexity, bits per byte; inspection of units and gates, ablation, gradients."""
