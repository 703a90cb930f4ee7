"""Two runs or checkpoints side by side, read from disk alone: without the user's code, while they train or after."""
