"""The instrument that says which feed-forward activation a transformer should use."""
