"""How data are fed: torch datasets, transforms, samplers, data modules."""
