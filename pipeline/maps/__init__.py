"""From codes on a grid to files that open right: GeoTIFF, styles, polygons, projects, STAC."""
