"""Text in, token blocks out: documents, tokenizers, the prepared cache, the order of batches.

Key of the shapes: B batch, T time (the context length). The only room that knows `datasets`.
"""
