// Philox4x32-10 (Salmon et al., SC 2011) and its normal variates: pure functions of key and counter, host and device.
//
// Everything after the integer rounds is IEEE double arithmetic without library functions and without fused
// multiply-adds, so that the variates are the same bits on every instruction set of the processor.
#pragma once
#include <cstdint>
#include <cstring>

#include "common.hpp"

#define RK_INLINE HOST_DEVICE inline __attribute__((always_inline))

namespace rk {

// Four random words; on entry the counter, on return the block it encrypts to.
struct Words {
    uint32_t w0, w1, w2, w3;
};

RK_INLINE Words philox(Words counter, uint32_t key0, uint32_t key1) {
    for (int round = 0; round < 10; ++round) {
        const uint64_t product0 = uint64_t{0xD2511F53u} * counter.w0;
        const uint64_t product1 = uint64_t{0xCD9E8D57u} * counter.w2;
        const uint32_t high0 = static_cast<uint32_t>(product0 >> 32), low0 = static_cast<uint32_t>(product0);
        const uint32_t high1 = static_cast<uint32_t>(product1 >> 32), low1 = static_cast<uint32_t>(product1);
        counter = {high1 ^ counter.w1 ^ key0, low1, high0 ^ counter.w3 ^ key1, low0};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return counter;
}

// Who asks, when, and for what: step in the low 48 bits, stream in the next 16, then the 64-bit id.
RK_INLINE Words counter_of(uint64_t step, uint32_t stream, uint64_t id) {
    return {static_cast<uint32_t>(step), (static_cast<uint32_t>(step >> 32) & 0xFFFFu) | (stream << 16),
            static_cast<uint32_t>(id), static_cast<uint32_t>(id >> 32)};
}

// word + 1/2 as a double, exactly; by a signed conversion, which vectorizes.
RK_INLINE double half_open(uint32_t word) {
    return static_cast<double>(static_cast<int32_t>(word ^ 0x80000000u)) + 2147483648.5;
}

// log(u) for normal u > 0: u = 2^e m with m in [1/sqrt 2, sqrt 2), log m = 2 artanh((m - 1) / (m + 1)).
RK_INLINE double log_positive(double u) {
    uint64_t bits;
    std::memcpy(&bits, &u, 8);
    const uint64_t exponent_bits = (bits >> 52) | 0x4330000000000000u;  // 2^52 + biased exponent
    const uint64_t mantissa_bits = (bits & 0x000FFFFFFFFFFFFFu) | 0x3FF0000000000000u;
    double exponent, mantissa;
    std::memcpy(&exponent, &exponent_bits, 8);
    std::memcpy(&mantissa, &mantissa_bits, 8);
    exponent -= 4503599627370496.0 + 1023.0;
    const bool large = mantissa > 1.4142135623730951;
    mantissa = large ? 0.5 * mantissa : mantissa;
    exponent = large ? exponent + 1.0 : exponent;
    const double s = (mantissa - 1.0) / (mantissa + 1.0), z = s * s;
    double sum = 1.0 / 23.0;
    for (int odd = 21; odd >= 1; odd -= 2) sum = sum * z + 1.0 / odd;
    return exponent * 0.69314718055994531 + 2.0 * s * sum;
}

// sin and cos of 2 pi (word + 1/2) / 2^32; the quadrant is taken from the integer, so nothing is rounded off.
RK_INLINE void sincos_turn(uint32_t word, double& sine, double& cosine) {
    const uint32_t quadrant = (word + 0x20000000u) >> 30;
    const int32_t rest = static_cast<int32_t>(word - (quadrant << 30));  // within an eighth of a turn
    const double a = (static_cast<double>(rest) + 0.5) * 1.4629180792671596e-9;  // 2 pi / 2^32
    const double z = a * a;
    double s = 1.0, c = 1.0;
    for (int k = 17; k >= 3; k -= 2) s = 1.0 - s * z * (1.0 / (k * (k - 1)));
    for (int k = 18; k >= 2; k -= 2) c = 1.0 - c * z * (1.0 / (k * (k - 1)));
    s *= a;
    const bool swap = quadrant & 1u;
    const double first = swap ? c : s, second = swap ? s : c;
    sine = quadrant & 2u ? -first : first;
    cosine = (quadrant + 1u) & 2u ? -second : second;
}

// First three of the four Box-Muller variates of one block.
RK_INLINE double root(double x) { return __builtin_sqrt(x); }

RK_INLINE void normals(Words random, double& z0, double& z1, double& z2) {
    const double scale = 2.3283064365386963e-10;  // 2^-32
    const double radius0 = root(-2.0 * log_positive(half_open(random.w0) * scale));
    const double radius1 = root(-2.0 * log_positive(half_open(random.w2) * scale));
    double sine, cosine;
    sincos_turn(random.w1, sine, cosine);
    z0 = radius0 * cosine;
    z1 = radius0 * sine;
    sincos_turn(random.w3, sine, cosine);
    z2 = radius1 * cosine;
}

}  // namespace rk
