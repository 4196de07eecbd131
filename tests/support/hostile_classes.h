// Sections of the class codec that a reader must refuse.
#pragma once

#include "support/hostile_sections.h"

namespace siltstone::test {

std::vector<HostileSection> hostile_classes();

}  // namespace siltstone::test
