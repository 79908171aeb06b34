"""Files on disk -> Scene (immutable manifest, no open handles) -> Raster."""
