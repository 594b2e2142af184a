"""What is said: the log, the reporter, the ready file."""
