"""Training: the step, the devices it runs on, the loop, and what it leaves on disk."""
