"""What surrounds the feed-forward block: a decoder shaped like Llama, its counts, sampling.

Key of the shapes: B batch, T time, D model width, F feed-forward width, H heads, K head width,
V vocabulary.
"""
