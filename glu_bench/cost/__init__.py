"""What things cost: tokens per second against peers and against the machine's limit."""
