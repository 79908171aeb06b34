"""The network and all that must travel with it: bands, scaling, classes, calibration."""
