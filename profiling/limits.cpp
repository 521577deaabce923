// Measures what this machine can do at best: fused multiply-adds, memory bandwidth, table look-ups from cache.
//
// Plain loops, compiled by profiling/machine.py for the machine they run on. Each function returns units per second
// over all threads.
#include <omp.h>

#include <cstdint>
#include <cstdlib>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 8;
#elif defined(__AVX__)
constexpr int LANES = 4;
#else
constexpr int LANES = 2;
#endif
constexpr int CHAINS = 12;  // independent sums: enough to hide the latency of two pipelines, few enough for registers
constexpr int RECORD = 8;
typedef double vec __attribute__((vector_size(LANES * sizeof(double))));

volatile double sink;  // results end here, so that no loop is dead code

}  // namespace

// Fused multiply-adds in float64, two floating-point operations each.
extern "C" double limit_fma(int threads, double duration) {
    volatile double one = 0.999999999, small = 1e-9;
    double total = 0.0;
#pragma omp parallel num_threads(threads) reduction(+ : total)
    {
        vec sum[CHAINS] = {};
        const vec factor = one - vec{}, term = small - vec{};
        const double start = omp_get_wtime();
        double rounds = 0.0, elapsed;
        do {
            for (int i = 0; i < 100000; ++i)
#pragma GCC unroll 12
                for (int c = 0; c < CHAINS; ++c) sum[c] = sum[c] * factor + term;
            rounds += 100000;
            elapsed = omp_get_wtime() - start;
        } while (elapsed < duration);
        for (int c = 0; c < CHAINS; ++c) sink = sum[c][0];
        total += 2.0 * LANES * CHAINS * rounds / elapsed;
    }
    return total;
}

// Triad a = b + s c over arrays far larger than any cache: 24 bytes an element.
extern "C" double limit_stream(int threads, int64_t elements, int repeats) {
    std::vector<double> a(elements), b(elements), c(elements);
    double *pa = a.data(), *pb = b.data(), *pc = c.data();
    double best = 0.0;
    for (int r = 0; r <= repeats; ++r) {
        const double start = omp_get_wtime();
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int64_t i = 0; i < elements; ++i) pa[i] = pb[i] + 3.0 * pc[i];
        const double rate = 24.0 * elements / (omp_get_wtime() - start);
        if (r > 0 && rate > best) best = rate;
    }
    sink = pa[elements / 2];
    return best;
}

// Records of 64 bytes read in random order from a table that caches hold.
extern "C" double limit_lookup(int threads, int64_t records, double duration) {
    double* table = static_cast<double*>(std::aligned_alloc(64, RECORD * sizeof(double) * records));
    for (int64_t i = 0; i < RECORD * records; ++i) table[i] = 1.0;
    std::vector<int32_t> order(1 << 14);
    uint32_t state = 1;
    for (auto& index : order) {
        state = state * 1664525u + 1013904223u;
        index = static_cast<int32_t>((state >> 8) % records);
    }
    double total = 0.0;
#pragma omp parallel num_threads(threads) reduction(+ : total)
    {
        constexpr int PARTS = RECORD / LANES, AHEAD = 4;  // sums of several records run side by side
        vec sum[AHEAD][PARTS] = {};
        const double start = omp_get_wtime();
        double rounds = 0.0, elapsed;
        do {
            for (std::size_t i = 0; i < order.size(); i += AHEAD)
#pragma GCC unroll 4
                for (int k = 0; k < AHEAD; ++k) {
                    const vec* record = reinterpret_cast<const vec*>(table + RECORD * order[i + k]);
#pragma GCC unroll 4
                    for (int part = 0; part < PARTS; ++part) sum[k][part] += record[part];
                }
            rounds += order.size();
            elapsed = omp_get_wtime() - start;
        } while (elapsed < duration);
        for (auto& sums : sum)
            for (auto& part : sums) sink = part[0];
        total += rounds / elapsed;
    }
    std::free(table);
    return total;
}
