// Host loops of the ring search: threads take roots in an order that keeps neighbours together in the caches.
#include "rings_search.hpp"

#include <algorithm>
#include <memory>
#include <new>
#include <vector>

#include <omp.h>

using rk::rings::Known;
using rk::rings::Net;
using rk::rings::Room;
using rk::rings::Scratch;

namespace {

constexpr int64_t CHUNK = 32;                       // roots a thread takes at a time
constexpr int64_t LARGEST_BALL = int64_t{1} << 21;  // nodes; a thread's scratch is then some 300 MB

// Nodes in breadth-first order: consecutive roots share most of their balls.
std::vector<int32_t> breadth_first(const Net& net) {
    std::vector<int32_t> order;
    order.reserve(net.n_nodes);
    std::vector<bool> seen(net.n_nodes, false);
    for (int64_t seed = 0; seed < net.n_nodes; ++seed) {
        if (seen[seed]) continue;
        seen[seed] = true;
        order.push_back(static_cast<int32_t>(seed));
        for (size_t next = order.size() - 1; next < order.size(); ++next) {
            const int32_t node = order[next];
            for (int64_t e = net.rows[node]; e < net.rows[node + 1]; ++e) {
                const int32_t other = net.ends[e].node;
                if (seen[other]) continue;
                seen[other] = true;
                order.push_back(other);
            }
        }
    }
    return order;
}

// One thread's scratch, which grows when a ball does not fit.
class Bench {
public:
    explicit Bench(int64_t max_size) : room_{256, 2048, 2048, max_size} { make(); }
    Scratch& scratch() { return scratch_; }
    // Makes room for what was lacking; false where that is beyond reason or memory.
    bool grow() {
        const int32_t lack = scratch_.lack;
        if (lack & rk::rings::LACK_NODES) room_.nodes *= 2;
        if (lack & rk::rings::LACK_ENDS) room_.ends *= 2;
        if (lack & (rk::rings::LACK_WORDS | rk::rings::LACK_NODES)) room_.words *= 2;
        if (room_.nodes > LARGEST_BALL || room_.ends > 16 * LARGEST_BALL || room_.words > 32 * LARGEST_BALL) return false;
        try {
            make();
        } catch (const std::bad_alloc&) {
            return false;
        }
        return true;
    }

private:
    void make() {
        block_.reset();
        block_.reset(new Quad[rk::rings::scratch_bytes(room_) / sizeof(Quad)]);
        scratch_ = rk::rings::lay_out(block_.get(), room_);
        rk::rings::empty(scratch_);
    }
    struct alignas(16) Quad {
        char bytes[16];
    };
    Room room_;
    std::unique_ptr<Quad[]> block_;
    Scratch scratch_;
};

// Calls work(scratch, root) for every root until it succeeds. Returns 0, or -1 where a ball does not fit.
template <class Work>
int64_t each_root(const Net& net, int64_t max_size, int64_t threads, Work work) {
    bool failed = false;
    threads = std::max<int64_t>(1, std::min(threads, net.n_nodes / CHUNK));
    // Made here: no exception may leave a parallel region, nor the C interface.
    std::vector<int32_t> order;
    std::vector<std::unique_ptr<Bench>> benches;
    try {
        order = breadth_first(net);
        for (int64_t t = 0; t < threads; ++t) benches.push_back(std::make_unique<Bench>(max_size));
    } catch (const std::bad_alloc&) {
        return -1;
    }
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Bench& bench = *benches[omp_get_thread_num()];
#pragma omp for schedule(dynamic, CHUNK)
        for (int64_t k = 0; k < net.n_nodes; ++k) {
            bool stop;
#pragma omp atomic read
            stop = failed;
            while (!stop && !work(bench.scratch(), order[k])) {
                if (bench.grow()) continue;
                stop = true;
#pragma omp atomic write
                failed = true;
            }
            rk::rings::clear(bench.scratch());
        }
    }
    return failed ? -1 : 0;
}

Net net_of(const int64_t* rows, const int32_t* ends, const int32_t* back, const int64_t* angle_rows, int64_t n_nodes) {
    return {n_nodes, rows, reinterpret_cast<const rk::rings::End*>(ends), back, angle_rows};
}

Known known_of(int64_t criterion, int64_t max_size, const int32_t* shortest, const int32_t* at_end) {
    return {static_cast<int32_t>(criterion), static_cast<int32_t>(max_size), shortest, at_end};
}

}  // namespace

// Arguments of a net: rows (n_nodes + 1), ends (n_ends, 4) 16-byte aligned, back (n_ends), angle_rows (n_nodes + 1).
// The others are those of csrc/rings_search.hpp.

RK_EXPORT int64_t rk_rings_shortest(const int64_t* rows, const int32_t* ends, const int32_t* back,
                                    const int64_t* angle_rows, int64_t n_nodes, int64_t max_size, int64_t threads,
                                    int32_t* shortest, int32_t* at_end) {
    const Net net = net_of(rows, ends, back, angle_rows, n_nodes);
    return each_root(net, max_size, threads, [&](Scratch& s, int32_t root) {
        return rk::rings::find_shortest(net, s, root, static_cast<int32_t>(max_size), shortest, at_end);
    });
}

RK_EXPORT int64_t rk_rings_count(const int64_t* rows, const int32_t* ends, const int32_t* back,
                                 const int64_t* angle_rows, int64_t n_nodes, int64_t criterion, int64_t max_size,
                                 const int32_t* shortest, const int32_t* at_end, int64_t threads, int32_t* per_node,
                                 int32_t* multiplicity, int32_t* least, int32_t* least_count) {
    const Net net = net_of(rows, ends, back, angle_rows, n_nodes);
    const Known known = known_of(criterion, max_size, shortest, at_end);
    return each_root(net, max_size, threads, [&](Scratch& s, int32_t root) {
        return rk::rings::count_rings(net, s, root, known, per_node, multiplicity, least, least_count);
    });
}

RK_EXPORT int64_t rk_rings_members(const int64_t* rows, const int32_t* ends, const int32_t* back,
                                   const int64_t* angle_rows, int64_t n_nodes, int64_t criterion, int64_t max_size,
                                   const int32_t* shortest, const int32_t* at_end, int64_t threads, int64_t size,
                                   int64_t* found, const int64_t* offsets, int64_t* nodes, int32_t* shifts) {
    const Net net = net_of(rows, ends, back, angle_rows, n_nodes);
    const Known known = known_of(criterion, max_size, shortest, at_end);
    return each_root(net, max_size, threads, [&](Scratch& s, int32_t root) {
        return rk::rings::list_rings(net, s, root, known, static_cast<int32_t>(size), found, offsets, nodes, shifts);
    });
}

RK_EXPORT int64_t rk_rings_shells(const int64_t* rows, const int32_t* ends, const int32_t* back,
                                  const int64_t* angle_rows, int64_t n_nodes, int64_t n_shells, int64_t threads,
                                  int64_t* shells) {
    const Net net = net_of(rows, ends, back, angle_rows, n_nodes);
    return each_root(net, n_shells, threads, [&](Scratch& s, int32_t root) {
        return rk::rings::count_shells(net, s, root, static_cast<int32_t>(n_shells), shells);
    });
}

// For tests: what a GPU launch must set aside a thread.
RK_EXPORT int64_t rk_rings_scratch_bytes(int64_t nodes, int64_t ends, int64_t words, int64_t max_size) {
    return rk::rings::scratch_bytes({nodes, ends, words, max_size});
}
