#!/bin/sh
# Installs what some tests drive from outside (QGIS, Chromium, R's survey): only as root on Debian or Ubuntu; elsewhere those tests
# skip with a reason.
command -v apt-get >/dev/null 2>&1 || { echo "system packages: no apt-get here; tests of QGIS, Chromium and R will skip"; exit 0; }
missing=""
/usr/bin/python3 -c "import qgis.core" >/dev/null 2>&1 || missing="$missing qgis python3-qgis qgis-providers python3-gdal"
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
Rscript -e 'library(survey)' >/dev/null 2>&1 || missing="$missing r-base-core r-cran-survey"
[ -z "$missing" ] && exit 0
[ "$(id -u)" = 0 ] || { echo "system packages: not root, so not installed:$missing; their tests will skip"; exit 0; }
echo "system packages: installing with apt-get, as root:$missing"
# Another apt that runs is waited for; what apt says is shown where it fails.
log=$(mktemp)
wait="-o DPkg::Lock::Timeout=600"
# shellcheck disable=SC2086
if apt-get $wait update -qq >"$log" 2>&1 \
  && DEBIAN_FRONTEND=noninteractive apt-get $wait install -y -qq --no-install-recommends $missing >"$log" 2>&1; then
  echo "system packages: installed"
else
  grep -E '^(E|W|Err):' "$log" || tail -n 20 "$log"
  echo "system packages: could not install$missing; their tests will skip"
fi
rm -f "$log"
exit 0
