#!/usr/bin/env bash
# Write the two lock files anew: every package at the version of constraints.txt, with the hashes of its files for all
# platforms and Python 3.11 to 3.13. Needs uv (pip install uv); asks the package index, installs nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
compile=(env -u PIP_FIND_LINKS uv pip compile --universal --python-version 3.11 -c constraints.txt --generate-hashes
         --no-header --no-annotate --quiet)
grep -E '^torch==' constraints.txt | "${compile[@]}" - -o requirements/torch.txt
# what torch alone brings stands in torch.txt: another build of torch has others, or none
alone=(--no-emit-package torch --no-emit-package triton)
while read -r name; do alone+=(--no-emit-package "$name"); done < <(grep -oE '^(nvidia|cuda)[a-z0-9-]*' requirements/torch.txt)
"${compile[@]}" pyproject.toml --extra eval --extra dev <(grep -E '^setuptools==' constraints.txt) "${alone[@]}" \
  -o requirements/lock.txt
wc -l requirements/*.txt
