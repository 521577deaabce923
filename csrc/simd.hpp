// Eight doubles at a time, in GCC/Clang vector extensions: one source for AVX-512, AVX2 and any other processor.
//
// Only what the extensions cannot say (compress, reciprocal square root) has an intrinsic form. The file is
// included by translation units compiled for different instruction sets, so everything is in an anonymous
// namespace: no inline function may be shared between them by the linker.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(__clang__) || __GNUC__ >= 12
#define RK_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define RK_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, rk::v8l{__VA_ARGS__})
#endif

namespace rk {
namespace {

constexpr int LANES = 8;
typedef double v8d __attribute__((vector_size(64)));
typedef double v4d __attribute__((vector_size(32)));
typedef int64_t v8l __attribute__((vector_size(64)));
typedef int32_t v8i __attribute__((vector_size(32)));

inline v8d broadcast(double x) { return v8d{x, x, x, x, x, x, x, x}; }

inline v8d load(const double* p) {
    v8d v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

inline v4d load4(const double* p) {
    v4d v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

inline void store(double* p, v8d v) { std::memcpy(p, &v, sizeof v); }
inline void store(int32_t* p, v8i v) { std::memcpy(p, &v, sizeof v); }

inline double sum(v8d v) {
    return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
}

inline v8d join(v4d low, v4d high) {
#if defined(__AVX512F__)
    return (v8d)_mm512_insertf64x4(_mm512_castpd256_pd512((__m256d)low), (__m256d)high, 1);
#else
    v8d v;
    std::memcpy(&v, &low, 32);
    std::memcpy(reinterpret_cast<char*>(&v) + 32, &high, 32);
    return v;
#endif
}

// 1/√x to a few units in the last place, for x ≥ 0: on AVX-512 a 14-bit start y and, with e = 1 − x y², the series
// y (1 + e/2 + 3e²/8 + 5e³/16).
inline v8d inverse_sqrt(v8d x) {
#if defined(__AVX512F__)
    const v8d y = (v8d)_mm512_rsqrt14_pd((__m512d)x);
    const v8d e = 1.0 - x * y * y;
    return y + y * (e * (0.5 + e * (0.375 + e * 0.3125)));
#else
    v8d y;
    for (int l = 0; l < LANES; ++l) y[l] = 1.0 / std::sqrt(x[l]);
    return y;
#endif
}

inline v8d smaller(v8d a, v8d b) {  // b where a is NaN
#if defined(__AVX512F__)
    return (v8d)_mm512_min_pd((__m512d)a, (__m512d)b);
#elif defined(__AVX__)
    __m256d x[2], y[2];
    std::memcpy(x, &a, sizeof a);
    std::memcpy(y, &b, sizeof b);
    for (int h = 0; h < 2; ++h) x[h] = _mm256_min_pd(x[h], y[h]);
    std::memcpy(&a, x, sizeof a);
    return a;
#elif defined(__SSE2__)
    __m128d x[4], y[4];
    std::memcpy(x, &a, sizeof a);
    std::memcpy(y, &b, sizeof b);
    for (int q = 0; q < 4; ++q) x[q] = _mm_min_pd(x[q], y[q]);
    std::memcpy(&a, x, sizeof a);
    return a;
#else
    return a < b ? a : b;
#endif
}

inline v8d larger(v8d a, v8d b) {  // b where a is NaN
#if defined(__AVX512F__)
    return (v8d)_mm512_max_pd((__m512d)a, (__m512d)b);
#elif defined(__AVX__)
    __m256d x[2], y[2];
    std::memcpy(x, &a, sizeof a);
    std::memcpy(y, &b, sizeof b);
    for (int h = 0; h < 2; ++h) x[h] = _mm256_max_pd(x[h], y[h]);
    std::memcpy(&a, x, sizeof a);
    return a;
#elif defined(__SSE2__)
    __m128d x[4], y[4];
    std::memcpy(x, &a, sizeof a);
    std::memcpy(y, &b, sizeof b);
    for (int q = 0; q < 4; ++q) x[q] = _mm_max_pd(x[q], y[q]);
    std::memcpy(&a, x, sizeof a);
    return a;
#else
    return a > b ? a : b;
#endif
}

// ⌊x⌋ of 0 ≤ x < 2³¹ in two forms at once: adding 2⁵², rounded down, leaves the whole number in the low bits of the
// significand, where it indexes tables; subtracting 2⁵² again gives it as a double.
struct Whole {
    v8d raised;
    static constexpr double MAGIC = 4503599627370496.0;
    static constexpr uint64_t MAGIC_BITS = 0x4330000000000000ull;
    explicit Whole(v8d x) {
#if defined(__AVX512F__)
        raised = (v8d)_mm512_add_round_pd((__m512d)x, (__m512d)broadcast(MAGIC), _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
#else
        raised = __builtin_convertvector(__builtin_convertvector(x, v8i), v8d) + MAGIC;
#endif
    }
    v8d value() const { return raised - MAGIC; }
};

// A table of sixteen doubles read at eight whole numbers in [0, 16); on AVX-512 it lives in two registers.
struct Lookup16 {
    v8d low, high;
    explicit Lookup16(const double* p) : low(load(p)), high(load(p + 8)) {}
    v8d operator[](Whole index) const {
#if defined(__AVX512F__)
        return (v8d)_mm512_permutex2var_pd((__m512d)low, _mm512_castpd_si512((__m512d)index.raised), (__m512d)high);
#else
        double values[16];
        store(values, low);
        store(values + 8, high);
        const v8l i = (v8l)index.raised & 15;
        v8d out;
        for (int l = 0; l < LANES; ++l) out[l] = values[i[l]];
        return out;
#endif
    }
};

// values[index & 7], lane by lane.
inline v8l lookup8(v8l values, v8l index) {
#if defined(__AVX512F__)
    return (v8l)_mm512_permutexvar_epi64((__m512i)index, (__m512i)values);
#else
    v8l out;
    for (int l = 0; l < LANES; ++l) out[l] = values[index[l] & 7];
    return out;
#endif
}

#if defined(__AVX2__) && !defined(__AVX512F__)
// For every mask of eight lanes, which lanes come first: byte p is the p-th lane that is set.
struct PackTable {
    uint64_t order[256] = {};
    constexpr PackTable() {
        for (int mask = 0; mask < 256; ++mask) {
            int n = 0;
            for (int l = 0; l < 8; ++l)
                if (mask >> l & 1) order[mask] |= static_cast<uint64_t>(l) << (8 * n++);
        }
    }
};
constexpr PackTable PACK_TABLE;
#endif

// Lanes of `v` whose bit is set in `mask`, packed to the front and stored; up to 8 entries past `p` are overwritten.
inline void compress_store(int32_t* p, unsigned mask, v8i v) {
#if defined(__AVX512F__) && defined(__AVX512VL__)
    // Compressing into a register and storing it whole avoids the slow memory form of the instruction.
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_maskz_compress_epi32(static_cast<__mmask8>(mask), (__m256i)v));
#elif defined(__AVX2__)
    const __m256i lanes = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(PACK_TABLE.order[mask])));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permutevar8x32_epi32((__m256i)v, lanes));
#else
    for (int l = 0; l < LANES; ++l) {
        *p = v[l];
        p += (mask >> l) & 1u;
    }
#endif
}

#if defined(__AVX512F__)
inline void compress_store(double* p, unsigned mask, v8d v) {
    store(p, (v8d)_mm512_maskz_compress_pd(static_cast<__mmask8>(mask), (__m512d)v));
}
#endif

// Bit l set where a[l] < b[l]; NaN is never less.
inline unsigned less_mask(v8d a, v8d b) {
#if defined(__AVX512F__)
    return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_LT_OQ);
#elif defined(__AVX__)
    __m256d x[2], y[2];
    std::memcpy(x, &a, sizeof a);
    std::memcpy(y, &b, sizeof b);
    unsigned mask = 0;
    for (int h = 0; h < 2; ++h) mask |= static_cast<unsigned>(_mm256_movemask_pd(_mm256_cmp_pd(x[h], y[h], _CMP_LT_OQ))) << (4 * h);
    return mask;
#elif defined(__SSE2__)
    __m128d x[4], y[4];
    std::memcpy(x, &a, sizeof a);
    std::memcpy(y, &b, sizeof b);
    unsigned mask = 0;
    for (int q = 0; q < 4; ++q) mask |= static_cast<unsigned>(_mm_movemask_pd(_mm_cmplt_pd(x[q], y[q]))) << (2 * q);
    return mask;
#else
    unsigned mask = 0;
    for (int l = 0; l < LANES; ++l) mask |= static_cast<unsigned>(a[l] < b[l]) << l;
    return mask;
#endif
}

// Eight records of four doubles to four vectors: record l goes to lane l.
inline void transpose_8x4(const double* const p[8], v8d& x, v8d& y, v8d& z, v8d& w) {
    const v8d a = join(load4(p[0]), load4(p[2]));
    const v8d b = join(load4(p[1]), load4(p[3]));
    const v8d c = join(load4(p[4]), load4(p[6]));
    const v8d d = join(load4(p[5]), load4(p[7]));
    const v8d ab_even = RK_SHUFFLE(a, b, 0, 8, 2, 10, 4, 12, 6, 14);
    const v8d ab_odd = RK_SHUFFLE(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
    const v8d cd_even = RK_SHUFFLE(c, d, 0, 8, 2, 10, 4, 12, 6, 14);
    const v8d cd_odd = RK_SHUFFLE(c, d, 1, 9, 3, 11, 5, 13, 7, 15);
    x = RK_SHUFFLE(ab_even, cd_even, 0, 1, 4, 5, 8, 9, 12, 13);
    z = RK_SHUFFLE(ab_even, cd_even, 2, 3, 6, 7, 10, 11, 14, 15);
    y = RK_SHUFFLE(ab_odd, cd_odd, 0, 1, 4, 5, 8, 9, 12, 13);
    w = RK_SHUFFLE(ab_odd, cd_odd, 2, 3, 6, 7, 10, 11, 14, 15);
}

}  // namespace
}  // namespace rk
