// The body of a reply whose object is still on its way.
#pragma once

#include <memory>

#include "relay/metrics.h"
#include "relay/parking.h"
#include "relay/request.h"
#include "relay/server_request.h"

struct MHD_Response;

namespace siltstone::relay {

// Sends what may be served of a file that is whole or arrives, and waits for more; cuts the
// connection if the object fails. Borrows `request` until its reply ends. `file` may be null for a
// reply without body.
MHD_Response* arriving_response(ServerRequest& request, std::shared_ptr<const File> file,
                                const ByteRange& range, std::shared_ptr<Parking> parking,
                                Metrics& metrics);

}  // namespace siltstone::relay
