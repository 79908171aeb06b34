"""A local page to look at maps: a server on loopback that shows the files it was given and nothing else."""
