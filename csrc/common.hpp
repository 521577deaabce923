// Shared by every translation unit: the export macro of the C interface and the host/device marker.
#pragma once
#include <cstdint>

#if defined(__CUDACC__)
#define HOST_DEVICE __host__ __device__
#else
#define HOST_DEVICE
#endif

#define RK_EXPORT extern "C" __attribute__((visibility("default")))
