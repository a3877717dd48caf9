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

// Elements in rows and columns, with the steps from one to the next.
struct Matrix {
  float* data;
  int64_t rows, columns, down, along;
};
using Product = void (*)(const Matrix& out, const Matrix& a, const Matrix& b);

enum Activation : int { IDENTITY = 0, LOGISTIC = 1, SOFTMAX = 2, RELU = 3, TANH = 4 };

// A network on the rows of a batch: matrices by rows, [rows, units] or [out, in]. The input may be sparse instead: then `which`
// are the numbers of the batch's rows among all, and the first weights are [in, out].
struct Perceptron {
  static constexpr int64_t MOST = 64;  // layers
  Product product;
  int64_t layers, rows;
  int activation, head;
  const int64_t* units;  // of the input, and of each layer
  float *x, *y, *share;  // share: a row's part in the loss
  const int64_t *which, *starts;  // row i of all has the entries from starts[i] on
  const int32_t* columns;
  const float* values;
  float *weight[MOST], *bias[MOST];  // of each layer
  float *weight_slope[MOST], *bias_slope[MOST];
  float* map[MOST];  // of the input and each hidden layer: what multiplies its units, or null
  float *active[MOST + 1], *masked[MOST], *delta[MOST + 1];  // what units give, times the map, and the loss's gradient by sums
  float* input(int64_t layer) const { return map[layer] ? masked[layer] : layer ? active[layer] : x; }
};

// Adam's numbers. rate: with the correction of both moments' bias. decay: by which a weight is added to its gradient.
struct Adam {
  float rate, decay, beta_1, rest_1, beta_2, rest_2, epsilon;  // beta + rest = 1
};

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
  // Of a perceptron: the loss of some rows, and their gradients by sums; from those, the gradients of some of the weights.
  double (*rows)(const Perceptron& p, int64_t first, int64_t last);
  void (*units)(const Perceptron& p, int64_t part, int64_t parts);
  // A step on n weights with their two moments; returns the sum of the squares of what they were.
  double (*adam)(float* w, const float* gradient, float* first, float* second, int64_t n, const Adam& adam);
};

extern const Kernels PORTABLE;
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define THINNED_X86 1
extern const Kernels AVX2, AVX512;
#endif

}  // namespace thinned
