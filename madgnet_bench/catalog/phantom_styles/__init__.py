"""How each phantom modality is painted: one file per modality, on the canvas that they share.

A painter takes a `Scene` and returns the image, (size, size, C) float32 in about [0, 1], and one level map per target:
positive inside the target, so that masks of any size come from the same geometry.
"""
