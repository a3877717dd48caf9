// The kernels: one table of functions for each instruction set. This file needs no torch header.
#pragma once
#include <cstdint>

namespace thinned {

// The random key of one example: a Philox key, and the words of the counter that do not depend on the mask element.
struct Lane {
  uint32_t key[2];
  uint64_t sample;
  uint32_t step;
};

// The random keys of examples that are drawn together. Both lists are read up to the next multiple of PAD.
struct Rows {
  static constexpr int64_t PAD = 32;
  const uint32_t* key;
  const uint64_t* samples;
  const uint32_t* steps;
  Rows from(int64_t i) const { return {key, samples + i, steps + i}; }
};

// y = residual + a x + b. Kept (or continuous): a = gain (1 + spread noise), b = shift. Dropped: a = 0, b = dropped.
struct Affine {
  double gain, shift, dropped;
  bool erased;  // everything is dropped: a x is 0 whatever x holds
};

enum Type : int { F32 = 0, F64 = 1, BF16 = 2, F16 = 3 };

// A matrix with the steps from one row and from one column to the next.
struct Matrix {
  float* data;
  int64_t rows, columns, down, along;
};
using Product = void (*)(const Matrix& out, const Matrix& a, const Matrix& b);

enum Activation : int { IDENTITY = 0, LOGISTIC = 1, SOFTMAX = 2, RELU = 3, TANH = 4 };

// A network on the rows of a batch: matrices by rows, [rows, units] or [out, in]. The input may be sparse instead: then `row_ids`
// are the numbers of the rows of the batch among all rows, and the first weights are [in, out].
struct Perceptron {
  static constexpr int64_t MAX_LAYERS = 64;
  Product product;
  int64_t layers, rows;
  int activation, head;
  const int64_t* units;  // of the input, and of each layer
  float *x, *y, *share;  // share: the weight of a row in the loss
  const int64_t *row_ids, *starts;  // row i of all rows has the entries from starts[i] on
  const int32_t* columns;
  const float* values;
  float *weight[MAX_LAYERS], *bias[MAX_LAYERS];  // of each layer
  float *weight_slope[MAX_LAYERS], *bias_slope[MAX_LAYERS];
  float* map[MAX_LAYERS];  // the factors of the units of the input and of each hidden layer, or null
  float *active[MAX_LAYERS + 1], *masked[MAX_LAYERS], *delta[MAX_LAYERS + 1];  // activations, activations * map, and dloss/dsum
  float* input(int64_t layer) const { return map[layer] ? masked[layer] : layer ? active[layer] : x; }
};

// The parameters of Adam. rate: the learning rate times the bias correction of both moments. decay: the factor by which a weight is
// added to its gradient.
struct Adam {
  float rate, decay, beta_1, rest_1, beta_2, rest_2, epsilon;  // beta + rest = 1
};

struct Kernels {
  const char* name;
  // Writes bytes for elements first, first + 1 ...: 1 where the word is below the threshold. Writes up to 255 bytes more.
  void (*is_dropped)(uint8_t* out, int64_t n, uint64_t first, const Lane& lane, uint32_t threshold);
  // Writes the words of elements first, first + 1 ...
  void (*words)(uint32_t* out, int64_t n, uint64_t first, const Lane& lane);
  // The two of the above for `examples` examples, one after the other, with n <= NARROW elements each: the registers hold blocks of
  // different examples. Both write up to 255 bytes more.
  static constexpr int64_t NARROW = 96;
  void (*is_dropped_each)(uint8_t* out, int64_t examples, int64_t n, uint64_t first, const Rows& of, uint32_t threshold);
  void (*words_each)(uint32_t* out, int64_t examples, int64_t n, uint64_t first, const Rows& of);
  // Writes one word for each (element, sample, step), for elements that are not consecutive.
  void (*scattered)(uint32_t* out, int64_t n, const uint64_t* elements, const uint64_t* samples, const uint32_t* steps,
                    const uint32_t* key);
  // Writes standard normals, accurate to 1e-6, by Box-Muller on pairs of words. n is even.
  void (*normal)(float* out, const uint32_t* words, int64_t n);
  // is_dropped and select in one pass over contiguous rows: memory is prefetched while words are drawn.
  void (*stream)(int type, const void* x, const void* residual, void* y, int64_t n, uint64_t first, const Lane& lane,
                 uint32_t threshold, const Affine& map);
  // The affine map of n elements; xs, rs and ys are strides. x null stands for ones, residual may be null. is_dropped: a byte each.
  void (*select)(int type, const void* x, int64_t xs, const void* residual, int64_t rs, void* y, int64_t ys, int64_t n,
                 const uint8_t* is_dropped, const Affine& map);
  // The same with one draw for all n elements.
  void (*constant)(int type, const void* x, int64_t xs, const void* residual, int64_t rs, void* y, int64_t ys, int64_t n,
                   bool is_dropped, const Affine& map);
  // The same with unit noise m: a = gain + spread * m.
  void (*scale)(int type, const void* x, int64_t xs, const void* residual, int64_t rs, void* y, int64_t ys, int64_t n,
                const float* noise, double gain, double spread, double shift);
  // rows: the loss of some rows of a perceptron, and its gradient by the sums of every layer. units: from those, the gradients of
  // the weights of one part of the units.
  double (*rows)(const Perceptron& p, int64_t first, int64_t last);
  void (*units)(const Perceptron& p, int64_t part, int64_t parts);
  // A step of Adam on n weights with their two moments; returns the sum of the squares of the weights before it.
  double (*adam)(float* w, const float* gradient, float* first, float* second, int64_t n, const Adam& adam);
};

extern const Kernels PORTABLE;
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define THINNED_X86 1
extern const Kernels AVX2, AVX512;
#endif

}  // namespace thinned
