"""The audit of data sets: faults of masks, duplicates and near-duplicates, groups in several splits, pretraining sets."""
