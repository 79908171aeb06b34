"""Many scenes, on this machine or over Dask: what to map, blocks of scenes, the cluster, who does what when."""
