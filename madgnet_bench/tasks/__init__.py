"""LightningModules: how an injected network is trained and tested."""
