"""The loop, optimiser, schedule, device and precision. Yields records; knows no screen."""
