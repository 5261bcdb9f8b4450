"""Training: roles and phases, one step and one loop for every method, checkpoints, shardings, averages and the log."""
