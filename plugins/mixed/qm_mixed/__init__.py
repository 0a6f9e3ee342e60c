"""Framework-neutral planners: which layers get how many bits."""
