add_library(siltstone_warnings INTERFACE)
target_compile_options(siltstone_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wnon-virtual-dtor
  -Woverloaded-virtual)
# What sanitizers add to the code confuses the analyses behind some warnings (GCC 12: -Warray-bounds
# in std::vector under -fsanitize=thread), so there they warn only.
if(NOT SILTSTONE_SANITIZE)
  target_compile_options(siltstone_warnings INTERFACE -Werror)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # False alarms in std::string's operator+ (GCC bug 105329, mended in 13).
  target_compile_options(siltstone_warnings INTERFACE -Wno-restrict)
endif()
