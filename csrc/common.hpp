// Shared by every translation unit: the export macro of the C interface, the host/device marker, and integer types.
//
// Headers marked HOST_DEVICE are read by g++ for the CPU and by NVRTC (or nvcc) for GPUs. NVRTC has no standard headers:
// a shared header includes this file instead of <cstdint> and <cmath>, and calls floor, sqrt and the like without std::.
#pragma once

#if defined(__CUDACC_RTC__)
using int8_t = signed char;
using uint8_t = unsigned char;
using int16_t = short;
using uint16_t = unsigned short;
using int32_t = int;
using uint32_t = unsigned int;
using int64_t = long long;
using uint64_t = unsigned long long;
#else
#include <cmath>
#include <cstdint>
#endif

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define HOST_DEVICE __host__ __device__
#else
#define HOST_DEVICE
#endif

#define RK_EXPORT extern "C" __attribute__((visibility("default")))
