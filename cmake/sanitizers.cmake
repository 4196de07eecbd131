add_library(siltstone_sanitizers INTERFACE)
if(SILTSTONE_SANITIZE)
  target_compile_options(siltstone_sanitizers INTERFACE
    -fsanitize=${SILTSTONE_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(siltstone_sanitizers INTERFACE -fsanitize=${SILTSTONE_SANITIZE})
endif()
