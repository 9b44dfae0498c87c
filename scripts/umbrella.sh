#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# sh scripts/umbrella.sh   rewrites the include list of include/quern/quern.hpp: every public header
# of the rooms that need only Eigen and Highway, as git knows them. A test fails when it is stale.

set -eu
cd "$(dirname "$0")/.."
umbrella=include/quern/quern.hpp

list=$(git ls-files --cached 'include/quern/*.hpp' | LC_ALL=C sort |
  sed -n 's#^include/\(quern/.*\)$#\1#p' |
  grep -Ev -- '-inl\.hpp$|/detail/|^quern/(io|mpi)/|^quern/quern\.hpp$|^quern/core/openmp\.hpp$')
{
  sed '/^#include/,$d' "$umbrella"
  for header in $list; do printf '#include "%s"\n' "$header"; done
  printf '\n#endif  // QUERN_QUERN_HPP\n'
} >"$umbrella.new"
mv "$umbrella.new" "$umbrella"
