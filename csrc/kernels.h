// What the kernels do, one table of functions for each instruction set. No torch header here.
#pragma once
#include <cstdint>

namespace thinned {

// Whose words: a Philox key and the part of the counter that is not the cell.
struct Lane {
  uint32_t key[2];
  uint64_t sample;
  uint32_t step;
};

// y = residual + a x + b. Kept (or continuous): a = gain (1 + spread noise), b = shift. Dropped: a = 0, b = dropped.
struct Affine {
  double gain, shift, dropped;
  bool erased;  // everything falls: a x is 0 whatever x holds
};

enum Type : int { F32 = 0, F64 = 1, BF16 = 2, F16 = 3 };

struct Kernels {
  const char* name;
  // Bytes: 1 where the word of a cell is below the threshold, for cells first, first + 1 ... ; writes up to 255 more.
  void (*fell)(uint8_t* out, int64_t n, uint64_t first, const Lane& lane, uint32_t threshold);
  // Words of cells first, first + 1 ...
  void (*words)(uint32_t* out, int64_t n, uint64_t first, const Lane& lane);
  // Words of one cell in each of n lanes, for what is not consecutive.
  void (*scattered)(uint32_t* out, int64_t n, const uint64_t* cells, const uint64_t* samples, const uint32_t* steps,
                    const uint32_t* key);
  // Box-Muller on pairs of words: standard normals, accurate to 1e-6. n is even.
  void (*normal)(float* out, const uint32_t* words, int64_t n);
  // Both in one pass over contiguous rows: what is read next is fetched while the words are drawn.
  void (*stream)(int type, const void* x, const void* residual, void* y, int64_t n, uint64_t first, const Lane& lane,
                 uint32_t threshold, const Affine& map);
  // Rows of n elements, in element strides; x null stands for ones, residual may be null. fell: a byte an element.
  void (*select)(int type, const void* x, int64_t xs, const void* residual, int64_t rs, void* y, int64_t ys, int64_t n,
                 const uint8_t* fell, const Affine& map);
  // The same with one coin for the row.
  void (*constant)(int type, const void* x, int64_t xs, const void* residual, int64_t rs, void* y, int64_t ys, int64_t n,
                   bool fell, const Affine& map);
  // The same with unit noise m: a = gain + spread * m.
  void (*scale)(int type, const void* x, int64_t xs, const void* residual, int64_t rs, void* y, int64_t ys, int64_t n,
                const float* noise, double gain, double spread, double shift);
};

extern const Kernels PORTABLE;
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define THINNED_X86 1
extern const Kernels AVX2, AVX512;
#endif

}  // namespace thinned
