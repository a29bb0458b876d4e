"""A data set's name → rows: catalogue, files, readers, splits and batches."""
