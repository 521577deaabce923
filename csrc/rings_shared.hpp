// Integers that several threads change. Sums and minima do not depend on the order, so results repeat bit for bit.
#pragma once
#include "common.hpp"

namespace rk {
namespace rings {

// Adds and returns what was there before.
HOST_DEVICE inline int32_t add_shared(int32_t* counter, int32_t value) {
#if defined(__CUDA_ARCH__)
    return atomicAdd(counter, value);
#else
    return __atomic_fetch_add(counter, value, __ATOMIC_RELAXED);
#endif
}

// CUDA knows atomics by the names int and long long.
template <int BYTES>
struct Sized;
template <>
struct Sized<4> {
    using Type = int;
};
template <>
struct Sized<8> {
    using Type = long long;
};

template <class T>
HOST_DEVICE inline void lower_shared(T* least, T value) {
#if defined(__CUDA_ARCH__)
    using Word = typename Sized<sizeof(T)>::Type;
    atomicMin(reinterpret_cast<Word*>(least), static_cast<Word>(value));
#else
    T seen = __atomic_load_n(least, __ATOMIC_RELAXED);
    while (value < seen && !__atomic_compare_exchange_n(least, &seen, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
#endif
}

}  // namespace rings
}  // namespace rk
