// Small pieces of the cell list for GPUs: products that are never fused, 3×3 algebra, atomics; host and device.
//
// Sums of products are rounded product by product on every machine, so that host and device take the same pairs.
#pragma once
#include "common.hpp"

#define RK_BODY HOST_DEVICE inline

namespace rk {
namespace device {

RK_BODY double product(double x, double y) {
#if defined(__CUDA_ARCH__)
    return __dmul_rn(x, y);
#else
    return x * y;
#endif
}

RK_BODY int64_t bits_of(double x) {
#if defined(__CUDA_ARCH__)
    return __double_as_longlong(x);
#else
    int64_t bits;
    __builtin_memcpy(&bits, &x, 8);
    return bits;
#endif
}

RK_BODY double of_bits(int64_t bits) {
#if defined(__CUDA_ARCH__)
    return __longlong_as_double(bits);
#else
    double x;
    __builtin_memcpy(&x, &bits, 8);
    return x;
#endif
}

RK_BODY double infinite() { return of_bits(0x7FF0000000000000); }
RK_BODY double not_a_number() { return of_bits(0x7FF8000000000000); }
RK_BODY bool is_finite(double x) { return x - x == 0.0; }
RK_BODY double magnitude(double x) { return x < 0.0 ? -x : x; }
RK_BODY double root(double x) { return sqrt(x); }
RK_BODY double round_down(double x) { return floor(x); }
RK_BODY double round_up(double x) { return ceil(x); }
RK_BODY int64_t minimum(int64_t x, int64_t y) { return x < y ? x : y; }
RK_BODY int64_t maximum(int64_t x, int64_t y) { return x > y ? x : y; }

// Integers in the order of the doubles they stand for, so that a maximum of doubles is one of integers; 0 for 0.
RK_BODY int64_t ordered(double x) {
    const int64_t bits = bits_of(x);
    return bits < 0 ? bits ^ 0x7FFFFFFFFFFFFFFF : bits;
}
RK_BODY double unordered(int64_t bits) { return of_bits(bits < 0 ? bits ^ 0x7FFFFFFFFFFFFFFF : bits); }

RK_BODY int32_t fetch_add(int32_t* address, int32_t value) {
#if defined(__CUDA_ARCH__)
    return atomicAdd(address, value);
#else
    return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
#endif
}

RK_BODY void set_bits(int64_t* address, int64_t bits) {
#if defined(__CUDA_ARCH__)
    atomicOr(reinterpret_cast<unsigned long long*>(address), static_cast<unsigned long long>(bits));
#else
    __atomic_fetch_or(address, bits, __ATOMIC_RELAXED);
#endif
}

// Maximum; most callers find that theirs is not larger and only read.
RK_BODY void raise_to(int64_t* address, int64_t value) {
#if defined(__CUDA_ARCH__)
    if (value > *reinterpret_cast<volatile int64_t*>(address))
        atomicMax(reinterpret_cast<long long*>(address), static_cast<long long>(value));
#else
    int64_t held = __atomic_load_n(address, __ATOMIC_RELAXED);
    while (value > held && !__atomic_compare_exchange_n(address, &held, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
#endif
}

// Row vector times matrix: out = v M, M row-major 3×3.
RK_BODY void times_matrix(const double* v, const double* m, double* out) {
    for (int b = 0; b < 3; ++b) out[b] = product(v[0], m[b]) + product(v[1], m[3 + b]) + product(v[2], m[6 + b]);
}

RK_BODY void cross(const double* a, const double* b, double* out) {
    out[0] = product(a[1], b[2]) - product(a[2], b[1]);
    out[1] = product(a[2], b[0]) - product(a[0], b[2]);
    out[2] = product(a[0], b[1]) - product(a[1], b[0]);
}

RK_BODY double dot(const double* a, const double* b) {
    return product(a[0], b[0]) + product(a[1], b[1]) + product(a[2], b[2]);
}

// Columns b × c, c × a, a × b over the volume; not finite where the rows are dependent. Returns the volume, signed.
RK_BODY double invert(const double* rows, double* out) {
    double columns[9];
    for (int a = 0; a < 3; ++a) cross(rows + 3 * ((a + 1) % 3), rows + 3 * ((a + 2) % 3), columns + 3 * a);
    const double volume = dot(rows, columns), scale = 1.0 / volume;
    for (int a = 0; a < 3; ++a)
        for (int b = 0; b < 3; ++b) out[3 * b + a] = product(columns[3 * a + b], scale);
    return volume;
}

RK_BODY bool all_finite(const double* x, int n) {
    bool finite = true;
    for (int a = 0; a < n; ++a) finite = finite && is_finite(x[a]);
    return finite;
}

// As rsa_kernels.cells.complete: unit vectors normal to the others for missing (zero) vectors of directions that are
// not periodic. False if a periodic direction has none, a component is not finite, or the vectors are dependent.
RK_BODY bool complete_cell(const double* cell, const uint8_t* pbc, double* out) {
    bool sound = all_finite(cell, 9);
    int given[3], missing[3], n_given = 0, n_missing = 0;
    for (int a = 0; a < 3; ++a) {
        const bool zero = dot(cell + 3 * a, cell + 3 * a) == 0.0;
        sound = sound && !(zero && pbc[a]);
        if (zero) missing[n_missing++] = a;
        else given[n_given++] = a;
        for (int b = 0; b < 3; ++b) out[3 * a + b] = cell[3 * a + b];
    }
    double normal[6] = {0.0, 0.0, 0.0, 0.0, 0.0, 0.0};
    if (n_given == 0)
        for (int a = 0; a < 9; ++a) out[a] = a % 4 == 0;
    if (n_given == 2) cross(cell + 3 * given[0], cell + 3 * given[1], normal);
    if (n_given == 1) {
        const double* a = cell + 3 * given[0];
        int smallest = 0;
        for (int b = 1; b < 3; ++b)
            if (magnitude(a[b]) < magnitude(a[smallest])) smallest = b;
        const double axis[3] = {double(smallest == 0), double(smallest == 1), double(smallest == 2)};
        cross(a, axis, normal);
        cross(a, normal, normal + 3);
    }
    for (int m = 0; m < n_missing && n_given > 0; ++m) {
        const double length = root(dot(normal + 3 * m, normal + 3 * m));
        for (int b = 0; b < 3; ++b) out[3 * missing[m] + b] = normal[3 * m + b] / length;
    }
    double lengths = 1.0, normals[3];
    for (int a = 0; a < 3; ++a) lengths *= root(dot(out + 3 * a, out + 3 * a));
    cross(out + 3, out + 6, normals);
    return sound && magnitude(dot(out, normals)) / lengths > 1e-8;
}

}  // namespace device
}  // namespace rk
