"""What `diffjax COMMAND` does: one command a file, its text, its arguments and what it runs."""
