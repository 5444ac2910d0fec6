"""Numbers about numbers: intervals, tests, letters, fits. Nothing here knows a run."""
