"""What happens around the steps of a run: checkpoints, tables, checks, images for loggers."""
