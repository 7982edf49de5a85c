"""Programs that run a network: one file each, behind the contract of `base.Runtime`."""
