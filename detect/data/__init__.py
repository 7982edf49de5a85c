"""From files to batches: readers, checks, augmentation, loading."""
