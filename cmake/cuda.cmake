# SILTSTONE_CUDA is here so that scripts can already ask for it; the backend itself is not written.
if(SILTSTONE_CUDA)
  message(FATAL_ERROR
    "SILTSTONE_CUDA=ON: this version of Siltstone has no CUDA backend. What is missing is the folder "
    "src/cuda (device memory, compare, scatter and digest behind the device interface). "
    "Configure without -DSILTSTONE_CUDA=ON; the CPU paths need nothing else.")
endif()
