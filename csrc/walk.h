// Walks tensors of any strides in the contiguous or strided rows that the kernels take. This file needs no torch header.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels.h"
#include "philox.h"

namespace thinned {

enum Law : int { BERNOULLI = 0, GAUSSIAN = 1, UNIFORM = 2 };

constexpr uint64_t ALWAYS = uint64_t(1) << 32;

struct Axis {
  int64_t size, x, residual, y;  // strides of the tensors, in elements
  uint64_t mask_stride;          // step between mask elements, 0 on shared axes
  bool sample;                   // the axis of the examples
};

struct Job {
  const char *x, *residual;  // x null: ones; residual may be null
  char* y;
  int type;
  int64_t bytes;  // of an element
  Law law;
  uint64_t threshold;
  double spread;
  Affine map;
  uint32_t key[2];
  uint64_t offset;             // the first mask element
  uint32_t step;               // of all examples, where steps is null
  const int64_t *ids, *steps;  // of each example; ids null stands for 0, 1, 2 ...
  std::vector<Axis> axes;      // outermost in y's memory first; never empty after prepare
  size_t outer;                // the axis that is cut into tiles; those before it are outer
  int64_t width;               // where examples are drawn together: the elements of each. 0: they are not

  // Orders the axes as y lies in memory, and merges those that can be walked as one axis.
  void prepare() {
    axes.erase(std::remove_if(axes.begin(), axes.end(), [](const Axis& a) { return a.size == 1 && !a.sample; }), axes.end());
    std::stable_sort(axes.begin(), axes.end(), [](const Axis& a, const Axis& b) { return a.y > b.y; });
    std::vector<Axis> merged;
    for (const Axis& a : axes) {
      if (!merged.empty()) {
        Axis& o = merged.back();
        const bool joins = !o.sample && !a.sample && o.x == a.x * a.size && o.residual == a.residual * a.size &&
                           o.y == a.y * a.size && o.mask_stride == a.mask_stride * uint64_t(a.size);
        if (joins) {
          const int64_t size = o.size * a.size;
          o = a;
          o.size = size;
          continue;
        }
      }
      merged.push_back(a);
    }
    if (merged.empty()) merged.push_back(Axis{1, 1, 1, 1, 0, false});
    axes = merged;
    if (threshold == 0 || threshold >= ALWAYS) {
      if (law == BERNOULLI) map.erased = threshold != 0;
    }
    outer = axes.size() - 1;
    width = 0;
    const bool drawn = law != BERNOULLI || (threshold != 0 && threshold < ALWAYS);
    const Axis& inner = axes.back();
    if (!drawn) return;
    if (inner.sample) {
      if (inner.mask_stride == 0) width = 1;
    } else if (outer > 0 && inner.mask_stride == 1 && inner.size <= Kernels::NARROW) {
      const Axis& examples = axes[outer - 1];
      if (examples.sample && examples.mask_stride == 0 && examples.size >= FEW) width = inner.size, --outer;
    }
  }

  Lane lane(int64_t example) const { return {{key[0], key[1]}, id_of(example), step_of(example)}; }

  // The lanes of n examples, in two lists that have room for the next multiple of PAD.
  Rows lanes(int64_t example, int64_t n, uint64_t* samples, uint32_t* steps_of) const {
    const int64_t end = (n + Rows::PAD - 1) / Rows::PAD * Rows::PAD;
    for (int64_t e = 0; e < n; ++e) samples[e] = id_of(example + e);
    for (int64_t e = 0; e < n; ++e) steps_of[e] = step_of(example + e);
    for (int64_t e = n; e < end; ++e) samples[e] = 0, steps_of[e] = 0;
    return {key, samples, steps_of};
  }

  static constexpr int64_t TILE = 4096;  // elements of a task
  static constexpr int64_t CHUNK = 512;  // elements of a chunk, where noise is stored between two loops
  static constexpr int64_t TOGETHER = 2048;  // the same where examples are drawn together, unless PAD of them have more
  static constexpr int64_t FEW = 12;  // examples below which each is drawn alone

  // Examples of a chunk that are drawn together.
  int64_t chunk() const { return std::max(Rows::PAD, TOGETHER / width / Rows::PAD * Rows::PAD); }
  int64_t row() const { return axes[outer].size; }
  int64_t tile() const { return width ? 2 * chunk() : TILE; }
  int64_t tiles() const { return (row() + tile() - 1) / tile(); }
  int64_t tasks() const {
    int64_t n = tiles();
    for (size_t i = 0; i < outer; ++i) n *= axes[i].size;
    return n;
  }
  // The elements that a task draws, of which it may need only some.
  int64_t cost() const { return std::max<int64_t>(1, std::min(row(), tile()) * (width ? (width + 7) / 8 * 8 : 1)); }

  // Tasks [begin, end): a task is a tile of a row.
  void run(const Kernels& kernels, int64_t begin, int64_t end) const {
    const Axis& inner = axes[outer];
    std::vector<int64_t> index(outer);
    int64_t rest = begin / tiles(), at = begin % tiles();
    for (size_t i = outer; i-- > 0;) index[i] = rest % axes[i].size, rest /= axes[i].size;
    Scratch scratch;
    for (int64_t task = begin; task < end; ++task) {
      int64_t xo = 0, ro = 0, yo = 0, example = 0;
      uint64_t element = offset;
      for (size_t i = 0; i < outer; ++i) {
        const Axis& a = axes[i];
        xo += index[i] * a.x, ro += index[i] * a.residual, yo += index[i] * a.y;
        element += uint64_t(index[i]) * a.mask_stride;
        if (a.sample) example = index[i];
      }
      const int64_t start = at * tile(), n = std::min(tile(), row() - start);
      xo += start * inner.x, ro += start * inner.residual, yo += start * inner.y;
      if (inner.sample) example = start;
      element += uint64_t(start) * inner.mask_stride;
      const char *tx = x ? x + xo * bytes : nullptr, *tr = residual ? residual + ro * bytes : nullptr;
      if (width) {
        rows_of(kernels, scratch, tx, tr, y + yo * bytes, n, example, element);
      } else {
        tile_of(kernels, scratch, tx, tr, y + yo * bytes, n, example, element);
      }
      if (++at == tiles()) {
        at = 0;
        for (size_t i = outer; i-- > 0;) {
          if (++index[i] < axes[i].size) break;
          index[i] = 0;
        }
      }
    }
  }

 private:
  static constexpr int64_t MOST = std::max(2 * TOGETHER, Rows::PAD * (Kernels::NARROW + 2));  // words of a chunk of examples

  struct Scratch {
    alignas(64) uint8_t is_dropped[MOST + 256];
    alignas(64) uint32_t words[MOST + 64];
    alignas(64) float noise[MOST];
    uint64_t elements[2 * CHUNK], samples[TOGETHER];
    uint32_t steps[TOGETHER];
  };

  uint64_t id_of(int64_t example) const { return ids ? uint64_t(ids[example]) : uint64_t(example); }
  uint32_t step_of(int64_t example) const { return steps ? uint32_t(steps[example]) : step; }

  // Some examples with `width` elements each, where the next one is the next of the axis `outer`.
  void rows_of(const Kernels& k, Scratch& s, const char* tx, const char* tr, char* ty, int64_t examples, int64_t example,
               uint64_t element) const {
    const Axis& rows = axes[outer];
    const bool single = outer + 1 == axes.size();
    const Axis within = single ? Axis{1, rows.x, rows.residual, rows.y, 1, false} : axes.back();
    const auto joins = [&](int64_t row, int64_t along) { return single || row == along * width; };
    // Whether the chunk can be walked as one axis.
    const bool one = joins(rows.y, within.y) && (!tx || joins(rows.x, within.x)) && (!tr || joins(rows.residual, within.residual));
    // A normal needs the words of both elements of its pair.
    const int64_t skip = law == GAUSSIAN ? int64_t(element & 1) : 0;
    const int64_t count = law == GAUSSIAN ? (skip + width + 1) / 2 * 2 : width;
    for (int64_t i = 0; i < examples; i += chunk()) {
      const int64_t n = std::min(chunk(), examples - i);
      const Rows of = lanes(example + i, n, s.samples, s.steps);
      if (law == BERNOULLI) {
        k.is_dropped_each(s.is_dropped, n, width, element, of, uint32_t(threshold));
      } else {
        k.words_each(s.words, n, count, element - uint64_t(skip), of);
        if (law == GAUSSIAN) {
          k.normal(s.noise, s.words, n * count);
          for (int64_t e = 0; count != width && e < n; ++e)
            for (int64_t j = 0; j < width; ++j) s.noise[e * width + j] = s.noise[e * count + skip + j];
        } else {
          for (int64_t j = 0; j < n * width; ++j) s.noise[j] = (float(int32_t(s.words[j] ^ 0x80000000u)) + 0.5f) * 0x1p-31f;
        }
      }
      const int64_t length = one ? n * width : width;
      for (int64_t e = 0; e < n; e += one ? n : 1) {
        const char *fx = tx ? tx + (i + e) * rows.x * bytes : nullptr, *fr = tr ? tr + (i + e) * rows.residual * bytes : nullptr;
        char* fy = ty + (i + e) * rows.y * bytes;
        if (law == BERNOULLI) {
          k.select(type, fx, within.x, fr, within.residual, fy, within.y, length, s.is_dropped + e * width, map);
        } else {
          k.scale(type, fx, within.x, fr, within.residual, fy, within.y, length, s.noise + e * width, map.gain, spread, map.shift);
        }
      }
    }
  }

  void tile_of(const Kernels& k, Scratch& s, const char* tx, const char* tr, char* ty, int64_t n, int64_t example,
               uint64_t element) const {
    const Axis& a = axes.back();
    const bool drawn = law == BERNOULLI && threshold != 0 && threshold < ALWAYS;
    if (drawn && a.mask_stride == 1 && !a.sample && a.y == 1 && (!tx || a.x == 1) && (!tr || a.residual == 1)) {
      return k.stream(type, tx, tr, ty, n, element, lane(example), uint32_t(threshold), map);
    }
    for (int64_t i = 0; i < n; i += CHUNK) {
      chunk_of(k, s, tx ? tx + i * a.x * bytes : nullptr, tr ? tr + i * a.residual * bytes : nullptr, ty + i * a.y * bytes,
               std::min(CHUNK, n - i), a.sample ? example + i : example, element + uint64_t(i) * a.mask_stride);
    }
  }

  void chunk_of(const Kernels& k, Scratch& s, const char* tx, const char* tr, char* ty, int64_t n, int64_t example,
                uint64_t element) const {
    const Axis& inner = axes.back();
    const int64_t xs = inner.x, rs = inner.residual, ys = inner.y;
    if (law == BERNOULLI && (threshold == 0 || threshold >= ALWAYS)) {
      return k.constant(type, tx, xs, tr, rs, ty, ys, n, threshold != 0, map);
    }
    const bool gathered = inner.sample || inner.mask_stride > 1;
    const Lane lane = {{key[0], key[1]}, gathered ? 0 : id_of(example), gathered ? 0 : step_of(example)};
    const bool pairs = law == GAUSSIAN;  // a normal needs the words of both elements of its pair
    if (gathered) {
      for (int64_t i = 0; i < n; ++i) {
        const uint64_t c = element + uint64_t(i) * inner.mask_stride;
        const int64_t e = inner.sample ? example + i : example;
        if (pairs) {
          s.elements[2 * i] = c & ~uint64_t(1), s.elements[2 * i + 1] = c | 1;
          s.samples[2 * i] = s.samples[2 * i + 1] = id_of(e);
          s.steps[2 * i] = s.steps[2 * i + 1] = step_of(e);
        } else {
          s.elements[i] = c, s.samples[i] = id_of(e), s.steps[i] = step_of(e);
        }
      }
      k.scattered(s.words, pairs ? 2 * n : n, s.elements, s.samples, s.steps, key);
    }
    if (law == BERNOULLI) {
      if (gathered) {
        for (int64_t i = 0; i < n; ++i) s.is_dropped[i] = s.words[i] < threshold;
      } else {
        k.is_dropped(s.is_dropped, inner.mask_stride ? n : 1, element, lane, uint32_t(threshold));
        if (!inner.mask_stride) return k.constant(type, tx, xs, tr, rs, ty, ys, n, s.is_dropped[0], map);
      }
      return k.select(type, tx, xs, tr, rs, ty, ys, n, s.is_dropped, map);
    }
    const float* noise = s.noise;
    if (pairs) {
      const int64_t skip = gathered ? 0 : int64_t(element & 1),
                                                  count = gathered ? 2 * n : (skip + (inner.mask_stride ? n : 1) + 1) / 2 * 2;
      if (!gathered) k.words(s.words, count, element - uint64_t(skip), lane);
      k.normal(s.noise, s.words, count);
      if (gathered) {
        for (int64_t i = 0; i < n; ++i) s.noise[i] = s.noise[2 * i + int64_t((element + uint64_t(i) * inner.mask_stride) & 1)];
      }
      noise += skip;
    } else {
      const int64_t count = inner.mask_stride || gathered ? n : 1;
      if (!gathered) k.words(s.words, count, element, lane);
      for (int64_t i = 0; i < count; ++i) s.noise[i] = (float(int32_t(s.words[i] ^ 0x80000000u)) + 0.5f) * 0x1p-31f;
    }
    if (gathered || inner.mask_stride) return k.scale(type, tx, xs, tr, rs, ty, ys, n, noise, map.gain, spread, map.shift);
    const Affine whole = {map.gain + spread * double(*noise), map.shift, map.shift, false};
    k.constant(type, tx, xs, tr, rs, ty, ys, n, false, whole);
  }
};

}  // namespace thinned
