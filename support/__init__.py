"""What is not the lecture: flags, errors, checkpoints, logs, figures, pages."""
