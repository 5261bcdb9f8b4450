"""A run: its config, what is built of it, its directory, its samples and its pictures."""
