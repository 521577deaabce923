// Compact rows of neighbours to the forms that users read: pairs (i, j, S) in order, and a matrix with a row an atom.
//
// One pass in the order of the atoms: results are written from front to back, every row in the order of (j, S).
#include <algorithm>
#include <cstdint>
#include <utility>

#include "common.hpp"
#include "neighbors_collect.hpp"
#include "neighbors_scratch.hpp"

namespace rk {
namespace {

constexpr int64_t NO_MEMORY = -3;
constexpr int64_t RANKED = 128;  // rows up to this length are put in order by counting smaller keys, longer ones by sorting

typedef int32_t v4i __attribute__((vector_size(16)));

// An atom or image: its atom and lattice vector, one look-up.
struct Entry {
    v4i value;
    int32_t owner() const { return value[0]; }
};

struct Rows {
    const int64_t* ptr;
    const int32_t *columns, *owners, *shifts;
    int64_t n_atoms, n_entries;
    bool half;
};

// Whether (i, j, S) stands for itself and (j, i, −S) in a half list.
inline bool kept_in_half(int32_t i, int32_t j, int32_t a, int32_t b, int32_t c) {
    return i < j || (i == j && (a != 0 ? a : b != 0 ? b : c) > 0);
}

// One row at a time: its neighbours, and the rank of each in the order of (j, S).
class OrderedRow {
  public:
    OrderedRow(const Rows& rows, const Entry* entries) : rows_(rows), entries_(entries), loops_(neighbor_loops()) {}
    bool reserve(int64_t longest) {
        const int64_t room = longest + 16;
        return columns_.reserve(room) && keys_.reserve(room) && ranks_.reserve(room) && sorted_.reserve(2 * room);
    }
    void read(int64_t k) {
        const int32_t* columns = rows_.columns + rows_.ptr[k];
        const int64_t n = rows_.ptr[k + 1] - rows_.ptr[k];
        centre_ = entries_[k].value;
        int32_t *kept = columns_.data(), *keys = keys_.data();
        if (rows_.half) {
            size_ = 0;
            for (int64_t p = 0; p < n; ++p) {
                kept[size_] = columns[p];
                const v4i s = entries_[columns[p]].value - centre_;
                keys[size_] = entries_[columns[p]].owner();
                size_ += kept_in_half(0, s[0], s[1], s[2], s[3]);
            }
            columns = kept;
        } else {
            size_ = n;
            for (int64_t p = 0; p < n; ++p) keys[p] = entries_[columns[p]].owner();
        }
        listed_ = columns;
        if (size_ > RANKED || !loops_.rank(keys, size_, ranks_.data())) sort();
    }
    // j and S of every neighbour to their places.
    void write(int64_t* j, int32_t* s) const {
        const int32_t *keys = keys_.data(), *ranks = ranks_.data();
        for (int64_t p = 0; p < size_; ++p) {
            const int64_t to = ranks[p];
            const v4i shift = entries_[listed_[p]].value - centre_;
            j[to] = keys[p];
            for (int a = 0; a < 3; ++a) s[3 * to + a] = shift[a + 1];
        }
    }
    int64_t size() const { return size_; }

  private:
    // For long rows, and for those where some j occurs more than once: by j, a byte at a time, then by S among equals.
    void sort() {
        uint64_t *from = sorted_.data(), *to = from + size_;  // the key above, the position below
        uint32_t largest = 0;
        for (int64_t p = 0; p < size_; ++p) {
            from[p] = static_cast<uint64_t>(keys_[p]) << 32 | static_cast<uint64_t>(p);
            largest = std::max(largest, static_cast<uint32_t>(keys_[p]));
        }
        for (int bit = 32; bit == 32 || (bit < 64 && largest >> (bit - 32) != 0); bit += 8) {
            int32_t start[257] = {0};
            for (int64_t p = 0; p < size_; ++p) ++start[(from[p] >> bit & 255) + 1];
            for (int b = 0; b < 256; ++b) start[b + 1] += start[b];
            for (int64_t p = 0; p < size_; ++p) to[start[from[p] >> bit & 255]++] = from[p];
            std::swap(from, to);
        }
        const auto by_shift = [&](uint64_t a, uint64_t b) {
            const v4i first = entries_[listed_[a & 0xffffffffu]].value, second = entries_[listed_[b & 0xffffffffu]].value;
            for (int axis = 1; axis < 3; ++axis)
                if (first[axis] != second[axis]) return first[axis] < second[axis];
            return first[3] < second[3];
        };
        for (int64_t begin = 0, end; begin < size_; begin = end) {
            for (end = begin + 1; end < size_ && from[end] >> 32 == from[begin] >> 32;) ++end;
            if (end - begin > 1) std::sort(from + begin, from + end, by_shift);
        }
        for (int64_t r = 0; r < size_; ++r) ranks_[from[r] & 0xffffffffu] = static_cast<int32_t>(r);
    }
    const Rows& rows_;
    const Entry* entries_;
    const NeighborLoops& loops_;
    Scratch<int32_t> columns_, keys_, ranks_;
    Scratch<uint64_t> sorted_;
    const int32_t* listed_ = nullptr;
    v4i centre_{};
    int64_t size_ = 0;
};

// Calls write(i, row) for every atom in turn, in parallel, so that results are written from front to back; false where
// there is not enough memory.
template <typename Write>
bool for_every_atom(const Rows& rows, int threads, Write write) {
    Scratch<Entry> entries;
    Scratch<int32_t> row_of;
    if (!entries.reserve(rows.n_entries) || !row_of.reserve(rows.n_atoms)) return false;
    bool enough_memory = true;
    int64_t longest = 0;
    const bool several = rows.ptr[rows.n_atoms] > 16384;
#pragma omp parallel num_threads(threads) if (several)
    {
#pragma omp for schedule(static) nowait
        for (int64_t e = 0; e < rows.n_entries; ++e)
            entries[e].value = v4i{rows.owners[e], rows.shifts[3 * e], rows.shifts[3 * e + 1], rows.shifts[3 * e + 2]};
#pragma omp for schedule(static) reduction(max : longest)
        for (int64_t k = 0; k < rows.n_atoms; ++k) {
            row_of[rows.owners[k]] = static_cast<int32_t>(k);
            longest = std::max(longest, rows.ptr[k + 1] - rows.ptr[k]);
        }
        OrderedRow row(rows, entries.data());
        if (!row.reserve(longest)) {
#pragma omp atomic write
            enough_memory = false;
        } else {
#pragma omp for schedule(dynamic, 512) nowait
            for (int64_t i = 0; i < rows.n_atoms; ++i) {
                row.read(row_of[i]);
                write(i, row);
            }
        }
    }
    return enough_memory;
}

}  // namespace
}  // namespace rk

// Numbers of pairs of every atom: counts[i]. With `half` every pair counts once, else from both sides.
RK_EXPORT int64_t rk_neighbors_counts(const int64_t* ptr, const int32_t* columns, const int32_t* owners, const int32_t* shifts,
                                      int64_t n_atoms, int64_t half, int64_t threads, int64_t* counts) {
#pragma omp parallel for schedule(dynamic, 1024) num_threads(threads) if (ptr[n_atoms] > 16384)
    for (int64_t k = 0; k < n_atoms; ++k) {
        int64_t count = half ? 0 : ptr[k + 1] - ptr[k];
        const int32_t i = owners[k];
        for (int64_t p = half ? ptr[k] : ptr[k + 1]; p < ptr[k + 1]; ++p) {
            const int32_t e = columns[p], j = owners[e];
            if (i != j) {
                count += i < j;
            } else {
                const int32_t *s = shifts + 3 * e, *own = shifts + 3 * k;
                count += rk::kept_in_half(i, j, s[0] - own[0], s[1] - own[1], s[2] - own[2]);
            }
        }
        counts[i] = count;
    }
    return 0;
}

// Pairs in the order of (i, j, S): edge_index (2, n_pairs), unit_shifts (n_pairs, 3), at the offsets row_ptr (n_atoms + 1)
// that the counts add up to. Returns 0 or -3 (not enough memory).
RK_EXPORT int64_t rk_neighbors_edges(const int64_t* ptr, const int32_t* columns, const int32_t* owners, const int32_t* shifts,
                                     int64_t n_atoms, int64_t n_entries, int64_t half, int64_t threads, const int64_t* row_ptr,
                                     int64_t* edge_index, int32_t* unit_shifts) {
    const rk::Rows rows{ptr, columns, owners, shifts, n_atoms, n_entries, half != 0};
    const int64_t n_pairs = row_ptr[n_atoms];
    rk::advise_huge_pages(edge_index, 16 * n_pairs);
    rk::advise_huge_pages(unit_shifts, 12 * n_pairs);
    const auto write = [&](int64_t i, const rk::OrderedRow& row) {
        const int64_t begin = row_ptr[i];
        std::fill_n(edge_index + begin, row.size(), i);
        row.write(edge_index + n_pairs + begin, unit_shifts + 3 * begin);
    };
    return rk::for_every_atom(rows, static_cast<int>(threads), write) ? 0 : rk::NO_MEMORY;
}

// The same as a matrix: neighbors (n_atoms, width) and unit_shifts (n_atoms, width, 3), filled up with `fill` and zeros. No
// atom may have more than `width` neighbours. Returns 0 or -3 (not enough memory).
RK_EXPORT int64_t rk_neighbors_matrix(const int64_t* ptr, const int32_t* columns, const int32_t* owners, const int32_t* shifts,
                                      int64_t n_atoms, int64_t n_entries, int64_t half, int64_t threads, int64_t width,
                                      int64_t fill, int64_t* neighbors, int32_t* unit_shifts) {
    const rk::Rows rows{ptr, columns, owners, shifts, n_atoms, n_entries, half != 0};
    rk::advise_huge_pages(neighbors, 8 * n_atoms * width);
    rk::advise_huge_pages(unit_shifts, 12 * n_atoms * width);
    const auto write = [&](int64_t i, const rk::OrderedRow& row) {
        const int64_t begin = i * width, n = row.size();
        row.write(neighbors + begin, unit_shifts + 3 * begin);
        std::fill(neighbors + begin + n, neighbors + begin + width, fill);
        std::fill(unit_shifts + 3 * (begin + n), unit_shifts + 3 * (begin + width), 0);
    };
    return rk::for_every_atom(rows, static_cast<int>(threads), write) ? 0 : rk::NO_MEMORY;
}
