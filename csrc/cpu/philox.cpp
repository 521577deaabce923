// Host loops of the counter-based random numbers: bits and normals for a list of ids.
#include "philox.hpp"

#include <algorithm>

#include "isa.hpp"

namespace {

constexpr int64_t BLOCK = 64;  // atoms handled together in arrays the compiler vectorizes over

struct Request {
    uint32_t key0, key1, stream;
    uint64_t step;
    const int64_t* ids;
};

inline __attribute__((always_inline)) rk::Words words_of(const Request& request, int64_t i) {
    const auto counter = rk::counter_of(request.step, request.stream, static_cast<uint64_t>(request.ids[i]));
    return rk::philox(counter, request.key0, request.key1);
}

inline __attribute__((always_inline)) void fill(const Request& request, int64_t begin, int64_t end, double* out) {
    double z0[BLOCK], z1[BLOCK], z2[BLOCK];
    for (int64_t first = begin; first < end; first += BLOCK) {
        const int64_t count = std::min(BLOCK, end - first);
        for (int64_t k = 0; k < count; ++k) rk::normals(words_of(request, first + k), z0[k], z1[k], z2[k]);
        for (int64_t k = 0; k < count; ++k) {
            double* row = out + 3 * (first + k);
            row[0] = z0[k];
            row[1] = z1[k];
            row[2] = z2[k];
        }
    }
}

void fill_baseline(const Request& request, int64_t begin, int64_t end, double* out) { fill(request, begin, end, out); }

#if defined(__x86_64__)
// Without FMA: contracted products would change the last bit from one machine to the next.
__attribute__((target("avx2"))) void fill_avx2(const Request& request, int64_t begin, int64_t end, double* out) {
    fill(request, begin, end, out);
}
#endif

template <class Range>
void in_parallel(int64_t n, int64_t threads, Range range) {
    const int64_t blocks = (n + BLOCK - 1) / BLOCK;
    threads = std::max<int64_t>(1, std::min(threads, blocks / 8));  // a thread is worth starting for 512 atoms
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t part = 0; part < threads; ++part)
        range(std::min(n, blocks * part / threads * BLOCK), std::min(n, blocks * (part + 1) / threads * BLOCK));
}

Request request_of(int64_t seed, int64_t step, int64_t stream, const int64_t* ids) {
    const uint64_t key = static_cast<uint64_t>(seed);
    return {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32), static_cast<uint32_t>(stream),
            static_cast<uint64_t>(step), ids};
}

}  // namespace

// out (n, 4) int64 holding the four 32-bit words of each id's block.
RK_EXPORT int64_t rk_random_bits(int64_t seed, int64_t step, int64_t stream, const int64_t* ids, int64_t n, int64_t* out,
                                 int64_t threads) {
    const Request request = request_of(seed, step, stream, ids);
    in_parallel(n, threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const rk::Words random = words_of(request, i);
            out[4 * i] = random.w0;
            out[4 * i + 1] = random.w1;
            out[4 * i + 2] = random.w2;
            out[4 * i + 3] = random.w3;
        }
    });
    return 0;
}

// out (n, 3) double, standard normal.
RK_EXPORT int64_t rk_random_normal(int64_t seed, int64_t step, int64_t stream, const int64_t* ids, int64_t n, double* out,
                                   int64_t threads) {
    const Request request = request_of(seed, step, stream, ids);
#if defined(__x86_64__)
    if (rk::active_isa() >= rk::Isa::avx2) {
        in_parallel(n, threads, [&](int64_t begin, int64_t end) { fill_avx2(request, begin, end, out); });
        return 0;
    }
#endif
    in_parallel(n, threads, [&](int64_t begin, int64_t end) { fill_baseline(request, begin, end, out); });
    return 0;
}
