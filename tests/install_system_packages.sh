#!/bin/sh
# Installs what some tests drive from outside (QGIS, Chromium, R's survey): only as root on Debian or Ubuntu; elsewhere those tests
# skip with a reason.
command -v apt-get >/dev/null 2>&1 || { echo "system packages: no apt-get here; tests of QGIS and Chromium will skip"; exit 0; }
[ "$(id -u)" = 0 ] || { echo "system packages: not root; tests of QGIS and Chromium may skip"; exit 0; }
missing=""
/usr/bin/python3 -c "import qgis.core" >/dev/null 2>&1 || missing="$missing qgis python3-qgis qgis-providers python3-gdal"
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
Rscript -e 'library(survey)' >/dev/null 2>&1 || missing="$missing r-base-core r-cran-survey"
[ -z "$missing" ] && exit 0
apt-get update -qq >/dev/null 2>&1
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 \
  || echo "system packages: could not install$missing; tests of QGIS and Chromium may skip"
exit 0
