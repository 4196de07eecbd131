#include "siltstone/result.h"

namespace siltstone {

std::string_view code_name(Code code) {
  switch (code) {
    case Code::kInvalidArgument:
      return "invalid argument";
    case Code::kNotFound:
      return "not found";
    case Code::kConflict:
      return "conflict";
    case Code::kCorrupt:
      return "corrupt";
    case Code::kMismatch:
      return "mismatch";
    case Code::kUnsupported:
      return "unsupported";
    case Code::kUnavailable:
      return "unavailable";
    case Code::kIo:
      return "input/output";
    case Code::kDevice:
      return "device";
    case Code::kInternal:
      return "internal";
    case Code::kPermission:
      return "permission";
    case Code::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

}  // namespace siltstone
