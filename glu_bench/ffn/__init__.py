"""What is compared: activations, the algebra of variants, the feed-forward block, its width.

Key of the shapes: B batch, T time, D model width, F feed-forward width.
"""
