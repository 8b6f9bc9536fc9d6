"""What the data are: cards, readers of official layouts, manifests, splits, phantoms. No torch."""
