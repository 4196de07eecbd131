// Finding out whether a store does what the commit protocol rests on.
#pragma once

#include "siltstone/store.h"

namespace siltstone {

// Creates two small objects under probe/, tries to create one of them again, reads both back, and
// removes them. kUnsupported, with the reason, if the store lets a second create through, or does
// not give back what was written: there are gateways that answer every PUT with success.
Status probe_store(Store& store);

}  // namespace siltstone
