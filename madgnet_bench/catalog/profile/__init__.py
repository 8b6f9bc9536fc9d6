"""The frequency profile: spectra, intensities and references of data sets, how far sets are apart, and a plot of it."""
