// The one atomic step: creating a commit object.
#pragma once

#include "repo/commit.h"
#include "siltstone/store.h"

namespace siltstone {

struct Committed {
  VersionId id;
  std::string text;  // of the object
};

// Creates log/<branch>/<seq>. A lost reply is resolved by reading the object back: whose attempt
// nonce it carries decides. kConflict: another writer has this number. kUnavailable: the outcome
// could not be learnt; nothing else may be committed under this number by this writer.
Result<Committed> create_commit(Store& store, const Commit& commit);

}  // namespace siltstone
