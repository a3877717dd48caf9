// Binds the kernels to torch, through its stable ABI, and to Python. No other file includes headers of either. The schemas are
// defined in Python (engines/torch/ops.py).
#include <Python.h>
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <atomic>
#include <cstring>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "walk.h"

namespace {

using thinned::Job;
using thinned::Kernels;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Ints = std::vector<int64_t>;

const Kernels* best() {
#ifdef THINNED_X86
  __builtin_cpu_init();
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (wide) return &thinned::AVX512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &thinned::AVX2;
#endif
  return &thinned::PORTABLE;
}

const Kernels* fastest = best();
const Kernels* kernels = fastest;

int type_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return thinned::F32;
    case ScalarType::Double: return thinned::F64;
    case ScalarType::BFloat16: return thinned::BF16;
    case ScalarType::Half: return thinned::F16;
    default: STD_TORCH_CHECK(false, "thinned: the native kernels take float32, float64, bfloat16 and float16");
  }
}

void check_numbers(const Tensor& t, int64_t at_least, const char* name) {
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Long && t.is_contiguous() && t.is_cpu() && t.numel() >= at_least, "thinned: ",
                  name, " has to be a contiguous int64 tensor of at least ", at_least, " elements on the CPU");
}

double as_double(int64_t bits) {
  double out;
  std::memcpy(&out, &bits, 8);
  return out;
}

// The part of a job that only the random key decides.
Job keyed_job(const Tensor& key, const std::optional<Tensor>& sample_ids, int64_t axis, int64_t examples, int64_t stream,
              int64_t call) {
  check_numbers(key, 1, "key");
  const int64_t* k = static_cast<const int64_t*>(key.const_data_ptr());
  Job j{};
  thinned::derive(uint64_t(k[0]), uint64_t(stream), uint32_t(call), j.key);
  j.step = key.numel() > 1 ? uint32_t(k[1]) : 0;
  if (sample_ids && axis >= 0) {
    check_numbers(*sample_ids, 0, "sample_ids");
    const auto sizes = sample_ids->sizes();
    STD_TORCH_CHECK(sizes.size() == 1 || (sizes.size() == 2 && sizes[0] == 2),
                    "thinned: sample_ids has to hold ids [n], or ids and steps [2, n]");
    STD_TORCH_CHECK(sizes[sizes.size() - 1] == examples, "thinned: samples has to name each of the ", examples,
                    " examples, but got ", sizes[sizes.size() - 1], " ids");
    j.ids = static_cast<const int64_t*>(sample_ids->const_data_ptr());
    if (sizes.size() == 2) j.steps = j.ids + examples;
  }
  return j;
}

// The part of a job that does not depend on the tensors that are read and written.
Job job(const Tensor& constants, const Tensor& key, const std::optional<Tensor>& sample_ids, int64_t axis, int64_t examples,
        int64_t law, int64_t offset, int64_t stream, int64_t call, bool grad) {
  check_numbers(constants, 5, "constants");
  const int64_t* n = static_cast<const int64_t*>(constants.const_data_ptr());
  Job j = keyed_job(key, sample_ids, axis, examples, stream, call);
  j.law = thinned::Law(law);
  j.threshold = uint64_t(n[0]);
  j.map = {as_double(n[1]), grad ? 0.0 : as_double(n[2]), grad ? 0.0 : as_double(n[3]), false};
  j.spread = as_double(n[4]) * j.map.gain;
  j.offset = uint64_t(offset);
  return j;
}

void execute(Job& j) {
  j.prepare();
  const int64_t tasks = j.tasks();
  const int64_t grain = std::max<int64_t>(1, 32768 / j.cost());
  if (tasks <= grain) {
    j.run(*kernels, 0, tasks);
  } else {
    torch::stable::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) { j.run(*kernels, begin, end); });
  }
}

void apply(const Tensor* x, const Tensor* residual, const Tensor& y, const Tensor& constants, const Tensor& key,
           const std::optional<Tensor>& sample_ids, const Ints& mask_strides, int64_t axis, int64_t law, int64_t offset,
           int64_t stream, int64_t call, bool grad) {
  const auto sizes = y.sizes();
  const int64_t dims = int64_t(sizes.size());
  STD_TORCH_CHECK(int64_t(mask_strides.size()) == dims, "thinned: strides has to have one number for each axis, but got ",
                  mask_strides.size(), " for ", dims);
  if (y.numel() == 0) return;
  Job j = job(constants, key, sample_ids, axis, axis < 0 ? 1 : sizes[axis], law, offset, stream, call, grad);
  j.type = type_of(y);
  j.bytes = int64_t(y.element_size());
  j.x = x ? static_cast<const char*>(x->const_data_ptr()) : nullptr;
  j.residual = residual ? static_cast<const char*>(residual->const_data_ptr()) : nullptr;
  j.y = static_cast<char*>(y.mutable_data_ptr());
  const auto ys = y.strides();
  for (int64_t i = 0; i < dims; ++i) {
    const int64_t xs = x ? x->strides()[i] : ys[i];
    j.axes.push_back({sizes[i], xs, residual ? residual->strides()[i] : ys[i], ys[i], uint64_t(mask_strides[i]), i == axis});
  }
  execute(j);
}

Tensor map(Tensor x, Tensor constants, Tensor key, std::optional<Tensor> sample_ids, Ints mask_strides, int64_t axis, int64_t law,
           int64_t offset, int64_t stream, int64_t call, bool grad) {
  Tensor y = torch::stable::empty_like(x);
  apply(&x, nullptr, y, constants, key, sample_ids, mask_strides, axis, law, offset, stream, call, grad);
  return y;
}

Tensor map_add(Tensor x, Tensor residual, Tensor constants, Tensor key, std::optional<Tensor> sample_ids, Ints mask_strides,
               int64_t axis, int64_t law, int64_t offset, int64_t stream, int64_t call) {
  Tensor y = torch::stable::empty_like(x);
  apply(&x, &residual, y, constants, key, sample_ids, mask_strides, axis, law, offset, stream, call, false);
  return y;
}

void map_into(Tensor y, Tensor x, Tensor constants, Tensor key, std::optional<Tensor> sample_ids, Ints mask_strides, int64_t axis,
              int64_t law, int64_t offset, int64_t stream, int64_t call, bool grad) {
  apply(&x, nullptr, y, constants, key, sample_ids, mask_strides, axis, law, offset, stream, call, grad);
}

Tensor factor(Tensor like, Tensor constants, Tensor key, std::optional<Tensor> sample_ids, Ints mask_strides, int64_t axis,
              int64_t law, int64_t offset, int64_t stream, int64_t call) {
  Tensor y = torch::stable::empty_like(like);
  apply(nullptr, nullptr, y, constants, key, sample_ids, mask_strides, axis, law, offset, stream, call, true);
  return y;
}

// The mask as bytes, 1 where an element is kept, over [examples, elements].
Tensor kept(Tensor constants, Tensor key, std::optional<Tensor> sample_ids, int64_t examples, int64_t elements, bool own,
            int64_t offset, int64_t stream, int64_t call) {
  Tensor y = torch::stable::empty({examples, elements}, ScalarType::Bool);
  Job j = job(constants, key, sample_ids, own ? 0 : -1, examples, thinned::BERNOULLI, offset, stream, call, false);
  uint8_t* out = static_cast<uint8_t*>(y.mutable_data_ptr());
  if (own && elements > 0 && elements <= Kernels::NARROW && j.threshold != 0 && j.threshold < thinned::ALWAYS) {
    constexpr int64_t together = 4 * thinned::Rows::PAD;
    torch::stable::parallel_for(0, (examples + together - 1) / together, 8, [&](int64_t begin, int64_t end) {
      uint8_t is_dropped[together * Kernels::NARROW + 256];
      uint64_t samples[together];
      uint32_t steps[together];
      for (int64_t start = begin * together; start < std::min(end * together, examples); start += together) {
        const int64_t n = std::min(together, examples - start);
        kernels->is_dropped_each(is_dropped, n, elements, j.offset, j.lanes(start, n, samples, steps), uint32_t(j.threshold));
        for (int64_t i = 0; i < n * elements; ++i) out[start * elements + i] = !is_dropped[i];
      }
    });
    return y;
  }
  constexpr int64_t tile = 4096;
  const int64_t tiles = (elements + tile - 1) / tile;
  torch::stable::parallel_for(0, examples * tiles, 8, [&](int64_t begin, int64_t end) {
    uint8_t is_dropped[tile + 256];
    for (int64_t task = begin; task < end; ++task) {
      const int64_t example = task / tiles, start = task % tiles * tile, n = std::min(tile, elements - start);
      const thinned::Lane lane = j.lane(example);
      if (j.threshold == 0 || j.threshold >= thinned::ALWAYS) {
        std::memset(is_dropped, j.threshold != 0, size_t(n));
      } else {
        kernels->is_dropped(is_dropped, n, uint64_t(start) + j.offset, lane, uint32_t(j.threshold));
      }
      for (int64_t i = 0; i < n; ++i) out[example * elements + start + i] = !is_dropped[i];
    }
  });
  return y;
}

// Maps as bytes, [examples, planes, map], 1 where an element is dropped: each seed below the threshold drops a box of `extent`.
// Adds the number of kept elements to `count`.
Tensor blocks(Tensor constants, Tensor key, std::optional<Tensor> sample_ids, int64_t examples, int64_t planes, bool own,
              Ints seeds, Ints extent, int64_t stream, int64_t call, Tensor count) {
  STD_TORCH_CHECK(seeds.size() == 3 && extent.size() == 3, "thinned: blocks takes maps of three axes");
  check_numbers(count, 1, "count");
  const int64_t in = seeds[0] * seeds[1] * seeds[2];
  const int64_t h = seeds[1] + extent[1] - 1, w = seeds[2] + extent[2] - 1, out = (seeds[0] + extent[0] - 1) * h * w;
  Tensor y = torch::stable::empty({examples, planes * out}, ScalarType::Bool);
  const Job j = job(constants, key, sample_ids, own ? 0 : -1, examples, thinned::BERNOULLI, 0, stream, call, false);
  uint8_t* to = static_cast<uint8_t*>(y.mutable_data_ptr());
  std::atomic<int64_t> kept{0};
  const int64_t planes_per_task = std::min(planes, std::max<int64_t>(1, 4096 / std::max<int64_t>(in, 1)));
  const int64_t tasks = (planes + planes_per_task - 1) / planes_per_task;
  torch::stable::parallel_for(0, examples * tasks, 1, [&](int64_t begin, int64_t end) {
    std::vector<uint8_t> seeds_of(size_t(planes_per_task * in) + 256);
    int64_t here = 0;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t example = task / tasks, first = task % tasks * planes_per_task, n = std::min(planes_per_task, planes - first);
      const thinned::Lane lane = j.lane(example);
      kernels->is_dropped(seeds_of.data(), n * in, uint64_t(first * in), lane, uint32_t(j.threshold));
      uint8_t* map = to + (example * planes + first) * out;
      std::memset(map, 0, size_t(n * out));
      for (int64_t i = 0; i < n * in; ++i) {
        uint64_t eight = 1;
        if (i + 8 <= n * in) std::memcpy(&eight, &seeds_of[size_t(i)], 8);
        if (!eight) {
          i += 7;
          continue;
        }
        if (!seeds_of[size_t(i)]) continue;
        const int64_t place = i % in;
        uint8_t* corner = map + i / in * out + place % seeds[2] +
                          (place / (seeds[1] * seeds[2]) * h + place / seeds[2] % seeds[1]) * w;
        for (int64_t a = 0; a < extent[0]; ++a)
          for (int64_t b = 0; b < extent[1]; ++b) std::memset(corner + (a * h + b) * w, 1, size_t(extent[2]));
      }
      int64_t drop_count = 0;
      for (int64_t i = 0; i < n * out; ++i) drop_count += map[i];
      here += n * out - drop_count;
    }
    kept += here;
  });
  *static_cast<int64_t*>(count.mutable_data_ptr()) += kept;
  return y;
}

// Returns x * gain, and 0 where a byte of `is_dropped` is 1; both are contiguous and of one size.
Tensor masked(Tensor x, Tensor is_dropped, double gain) {
  STD_TORCH_CHECK(x.is_contiguous() && is_dropped.is_contiguous() && x.numel() == is_dropped.numel() &&
                      is_dropped.scalar_type() == ScalarType::Bool,
                  "thinned: masked takes a contiguous tensor and as many contiguous bools");
  Tensor y = torch::stable::empty_like(x);
  const int type = type_of(x);
  const int64_t bytes = int64_t(x.element_size());
  const char* from = static_cast<const char*>(x.const_data_ptr());
  const uint8_t* mask = static_cast<const uint8_t*>(is_dropped.const_data_ptr());
  char* to = static_cast<char*>(y.mutable_data_ptr());
  const thinned::Affine map = {gain, 0, 0, false};
  torch::stable::parallel_for(0, x.numel(), 32768, [&](int64_t begin, int64_t end) {
    kernels->select(type, from + begin * bytes, 1, nullptr, 0, to + begin * bytes, 1, end - begin, mask + begin, map);
  });
  return y;
}

// For each example the `count` of n indices with the smallest words, ascending: int64 [examples, count]. Of equal words, that of the
// smaller index comes first.
Tensor subset(Tensor key, std::optional<Tensor> sample_ids, int64_t examples, int64_t n, int64_t count, int64_t stream, int64_t call) {
  STD_TORCH_CHECK(0 <= count && count <= n && n < (int64_t(1) << 32), "thinned: subset takes count from 0 to n, and n below 2^32");
  Tensor y = torch::stable::empty({examples, count}, ScalarType::Long);
  const Job j = keyed_job(key, sample_ids, 0, examples, stream, call);
  int64_t* out = static_cast<int64_t*>(y.mutable_data_ptr());
  torch::stable::parallel_for(0, examples, std::max<int64_t>(1, 4096 / std::max<int64_t>(n, 1)), [&](int64_t begin, int64_t end) {
    std::vector<uint32_t> words(size_t(n) + 256);
    std::vector<uint64_t> order(static_cast<size_t>(n));
    for (int64_t example = begin; example < end; ++example) {
      kernels->words(words.data(), n, 0, j.lane(example));
      for (int64_t i = 0; i < n; ++i) order[size_t(i)] = uint64_t(words[size_t(i)]) << 32 | uint64_t(i);
      if (0 < count && count < n) std::nth_element(order.begin(), order.begin() + (count - 1), order.end());
      const uint64_t last = count ? (count < n ? order[size_t(count - 1)] : ~uint64_t(0)) : 0;
      int64_t* to = out + example * count;
      for (int64_t i = 0, at = 0; at < count; ++i)
        if ((uint64_t(words[size_t(i)]) << 32 | uint64_t(i)) <= last) to[at++] = i;
    }
  });
  return y;
}

// The kept units of one axis of a matrix; without a list, all of them.
struct Units {
  Units(const std::optional<Tensor>& list, int64_t total) : all(!list), total(total) {
    if (all) return;
    check_numbers(*list, 0, "kept units");
    at = static_cast<const int64_t*>(list->const_data_ptr());
    count = list->numel();
    for (int64_t i = 0; i < count; ++i)
      STD_TORCH_CHECK(at[i] > (i ? at[i - 1] : -1) && at[i] < total, "thinned: kept units have to ascend, from 0 to below ", total);
  }
  int64_t size() const { return all ? total : count; }
  int64_t operator[](int64_t i) const { return all ? i : at[i]; }
  bool all;
  int64_t total, count = 0;
  const int64_t* at = nullptr;
};

// Copies one row between a matrix and a part of it. A unit is `block` elements.
template <typename T, bool SCATTER>
void copy_row(const char* from, char* to, const Units& columns, int64_t block) {
  const T* source = reinterpret_cast<const T*>(from);
  T* target = reinterpret_cast<T*>(to);
  const int64_t n = columns.size();
  if (columns.all) {
    std::memcpy(target, source, size_t(n * block) * sizeof(T));
    return;
  }
  if (SCATTER) std::memset(target, 0, size_t(columns.total * block) * sizeof(T));
  const int64_t* at = columns.at;
  if (block == 1) {
    for (int64_t i = 0; i < n; ++i) SCATTER ? target[at[i]] = source[i] : target[i] = source[at[i]];
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    const T* s = source + (SCATTER ? i : at[i]) * block;
    T* t = target + (SCATTER ? at[i] : i) * block;
    for (int64_t k = 0; k < block; ++k) t[k] = s[k];
  }
}

template <bool SCATTER>
void copy_any(int64_t bytes, const char* from, char* to, const Units& columns, int64_t block) {
  switch (bytes) {
    case 2: return copy_row<uint16_t, SCATTER>(from, to, columns, block);
    case 4: return copy_row<uint32_t, SCATTER>(from, to, columns, block);
    default: return copy_row<uint64_t, SCATTER>(from, to, columns, block);
  }
}

void check_matrix(const Tensor& t) {
  type_of(t);
  STD_TORCH_CHECK(t.is_contiguous() && t.is_cpu() && t.sizes().size() == 2, "thinned: parts are taken of contiguous matrices on the CPU");
}

// The part of a matrix between kept rows and kept columns; a unit of the columns is `block` neighboring ones.
Tensor gather_part(Tensor matrix, std::optional<Tensor> rows, std::optional<Tensor> columns, int64_t block) {
  check_matrix(matrix);
  const int64_t width = matrix.sizes()[1], bytes = int64_t(matrix.element_size());
  STD_TORCH_CHECK(block > 0 && width % block == 0, "thinned: block has to divide the columns");
  const Units down(rows, matrix.sizes()[0]), along(columns, width / block);
  const int64_t part_width = along.size() * block;
  Tensor y = torch::stable::empty({down.size(), part_width}, matrix.scalar_type());
  const char* from = static_cast<const char*>(matrix.const_data_ptr());
  char* to = static_cast<char*>(y.mutable_data_ptr());
  const int64_t grain = std::max<int64_t>(1, 32768 / std::max<int64_t>(part_width, 1));
  torch::stable::parallel_for(0, down.size(), grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      copy_any<false>(bytes, from + down[i] * width * bytes, to + i * part_width * bytes, along, block);
  });
  return y;
}

// The inverse: a matrix of `height` rows and `width` columns that holds the part, and 0 elsewhere.
Tensor scatter_part(Tensor part, std::optional<Tensor> rows, std::optional<Tensor> columns, int64_t height, int64_t width,
                    int64_t block) {
  check_matrix(part);
  STD_TORCH_CHECK(block > 0 && width % block == 0, "thinned: block has to divide the columns");
  const Units down(rows, height), along(columns, width / block);
  const int64_t bytes = int64_t(part.element_size()), part_width = along.size() * block;
  STD_TORCH_CHECK(part.sizes()[0] == down.size() && part.sizes()[1] == part_width, "thinned: the part has to be [",
                  down.size(), ", ", part_width, "]");
  Tensor y = torch::stable::empty({height, width}, part.scalar_type());
  std::vector<int64_t> row_of(static_cast<size_t>(height), -1);
  for (int64_t i = 0; i < down.size(); ++i) row_of[size_t(down[i])] = i;
  const char* from = static_cast<const char*>(part.const_data_ptr());
  char* to = static_cast<char*>(y.mutable_data_ptr());
  torch::stable::parallel_for(0, height, std::max<int64_t>(1, 32768 / std::max<int64_t>(width, 1)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = row_of[size_t(i)];
      if (row < 0) {
        std::memset(to + i * width * bytes, 0, size_t(width * bytes));
      } else {
        copy_any<true>(bytes, from + row * part_width * bytes, to + i * width * bytes, along, block);
      }
    }
  });
  return y;
}

// Returns the instruction set that runs: 0 portable, 1 avx2, 2 avx512. A `choice` of 0 to 2 selects it first, below 0 the
// fastest; a larger one changes nothing.
int64_t instructions(int64_t choice) {
  const Kernels* known[] = {&thinned::PORTABLE,
#ifdef THINNED_X86
                            &thinned::AVX2, &thinned::AVX512
#endif
  };
  const int64_t count = int64_t(sizeof(known) / sizeof(*known));
  if (choice < 0) {
    kernels = fastest;
  } else if (choice < 3) {
    int64_t limit = 0;
    while (limit + 1 < count && known[limit] != fastest) ++limit;
    STD_TORCH_CHECK(choice <= limit, "thinned: this machine has no such instructions");
    kernels = known[choice];
  }
  for (int64_t i = 0; i < count; ++i)
    if (known[i] == kernels) return i;
  return 0;
}

// factor(y, constants, key, sample_ids, rows, columns, stream, call, flags): what thinned::factor writes for an element mask on
// the rows of a contiguous tensor. Tensors are addresses; sample_ids 0 stands for 0, 1, 2 ... flags: 1 for float64, 2 for a key
// with a step. It serves tensors so small that the dispatcher costs more than the work.
PyObject* small_factor(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  int64_t v[9];
  if (count != 9) {
    PyErr_SetString(PyExc_TypeError, "factor takes 9 integers");
    return nullptr;
  }
  for (int i = 0; i < 9; ++i) v[i] = PyLong_AsLongLong(arguments[i]);
  if (PyErr_Occurred()) return nullptr;
  const int64_t* constants = reinterpret_cast<const int64_t*>(v[1]);
  const int64_t* key = reinterpret_cast<const int64_t*>(v[2]);
  const int64_t* ids = reinterpret_cast<const int64_t*>(v[3]);
  const int64_t rows = v[4], columns = v[5];
  const bool wide = v[8] & 1, stepped = v[8] & 2;
  thinned::Lane lane{};
  thinned::derive(uint64_t(key[0]), uint64_t(v[6]), uint32_t(v[7]), lane.key);
  lane.step = stepped ? uint32_t(key[1]) : 0;
  const thinned::Affine map = {as_double(constants[1]), 0, 0, false};
  char* y = reinterpret_cast<char*>(v[0]);
  for (int64_t row = 0; row < rows; ++row) {
    lane.sample = uint64_t(ids ? ids[row] : row);
    kernels->stream(wide ? thinned::F64 : thinned::F32, nullptr, nullptr, y + row * columns * (wide ? 8 : 4), columns, 0, lane,
                    uint32_t(constants[0]), map);
  }
  Py_RETURN_NONE;
}

// A matrix as a tensor handle of torch.
class Handle {
 public:
  explicit Handle(const thinned::Matrix& m) {
    const int64_t sizes[] = {m.rows, m.columns}, steps[] = {m.down, m.along};
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_create_tensor_from_blob(m.data, 2, sizes, steps, 0, aoti_torch_dtype_float32(),
                                                                    aoti_torch_device_type_cpu(), 0, &handle));
  }
  ~Handle() { aoti_torch_delete_tensor_object(handle); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  AtenTensorHandle handle;
};

void product(const thinned::Matrix& out, const thinned::Matrix& a, const thinned::Matrix& b) {
  const Handle to(out), left(a), right(b);
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_mm_out(to.handle, left.handle, right.handle));
}

// perceptron(plan, rows, loss, scratch, x, step, y, step, share, step, map, step, map, step ...): losses and gradients of m
// networks on a batch of float32 rows. All arguments are integers; tensors are addresses.
// plan, int64: m, layers, activation, head; the addresses of all weights and biases, and of their gradients; those of the starts,
// columns and values of a sparse input, or 0; the units of the input and of each layer. Weights lie layer by layer, each layer
// [m, out, in], then the biases, [m, out]. With a sparse input the first weights are [m, in, out], and x holds row ids.
// step: from one network to the next; 0 where they share the data. map: the factors of a layer's units; 0 for none.
// loss: float32 [m]. scratch: floats, m * rows * (output units + input units unless sparse + 3 times the units between).
PyObject* perceptron(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  constexpr int64_t MAX_LAYERS = thinned::Perceptron::MAX_LAYERS, BEFORE = 10;
  int64_t v[BEFORE + 2 * MAX_LAYERS];
  if (count < BEFORE + 2 || count > BEFORE + 2 * MAX_LAYERS) {
    PyErr_SetString(PyExc_TypeError, "perceptron takes 10 integers, and 2 for each of at most 64 layers");
    return nullptr;
  }
  for (int i = 0; i < count; ++i) v[i] = PyLong_AsLongLong(arguments[i]);
  if (PyErr_Occurred()) return nullptr;
  const int64_t* plan = reinterpret_cast<const int64_t*>(v[0]);
  const int64_t m = plan[0], layers = plan[1], rows = v[1], *units = plan + 9;
  if (layers * 2 != count - BEFORE) {
    PyErr_SetString(PyExc_TypeError, "perceptron takes a map and its step for each layer");
    return nullptr;
  }
  const auto at = [](int64_t address, int64_t offset) { return reinterpret_cast<float*>(address) + offset; };
  std::vector<thinned::Perceptron> networks(size_t(m), thinned::Perceptron{});
  for (int64_t j = 0; j < m; ++j) {
    thinned::Perceptron& p = networks[size_t(j)];
    p.product = product;
    p.layers = layers, p.rows = rows, p.activation = int(plan[2]), p.head = int(plan[3]), p.units = units;
    p.x = plan[6] ? nullptr : at(v[4], j * v[5]);
    p.row_ids = plan[6] ? reinterpret_cast<const int64_t*>(v[4]) + j * v[5] : nullptr;
    p.starts = reinterpret_cast<const int64_t*>(plan[6]), p.columns = reinterpret_cast<const int32_t*>(plan[7]);
    p.values = at(plan[8], 0);
    p.y = at(v[6], j * v[7]), p.share = at(v[8], j * v[9]);
    int64_t offset = 0;
    for (int64_t l = 0; l < layers; ++l) {
      const int64_t size = units[l] * units[l + 1];
      p.weight[l] = at(plan[4], offset + j * size), p.weight_slope[l] = at(plan[5], offset + j * size);
      offset += m * size;
      p.map[l] = v[BEFORE + 2 * l] ? at(v[BEFORE + 2 * l], j * v[BEFORE + 2 * l + 1]) : nullptr;
    }
    for (int64_t l = 0; l < layers; ++l) {
      p.bias[l] = at(plan[4], offset + j * units[l + 1]), p.bias_slope[l] = at(plan[5], offset + j * units[l + 1]);
      offset += m * units[l + 1];
    }
  }
  // Lays out the scratch memory of one network from `to` on; returns where it ends.
  const auto lay = [&](thinned::Perceptron& p, float* to) {
    const auto take = [&](int64_t n) { return to += n, to - n; };
    for (int64_t l = 0; l < layers; ++l) {
      if (l || !p.row_ids) p.masked[l] = take(rows * units[l]);
      if (l) p.active[l] = take(rows * units[l]), p.delta[l] = take(rows * units[l]);
    }
    p.delta[layers] = take(rows * units[layers]);
    return to;
  };
  // The number of parts of each network, chosen so that all threads have equally much to do.
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t parts = m >= 8 * threads ? 1 : std::min(threads / std::gcd(m, threads), std::max<int64_t>(1, rows / 8));
  std::vector<double> losses(size_t(m * parts));
  const int64_t size = lay(networks[0], at(v[3], 0)) - at(v[3], 0);
  std::string failure;
  PyThreadState* state = PyEval_SaveThread();
  try {
    if (parts == 1) {  // network by network, each thread in memory that stays in its cache
      std::atomic<int64_t> taken{0};
      torch::stable::parallel_for(0, m, 1, [&](int64_t begin, int64_t end) {
        float* mine = at(v[3], taken++ * size);
        for (int64_t j = begin; j < end; ++j) {
          thinned::Perceptron& p = networks[size_t(j)];
          lay(p, mine);
          losses[size_t(j)] = kernels->rows(p, 0, rows);
          kernels->units(p, 0, 1);
        }
      });
    } else {
      for (int64_t j = 1; j < m; ++j) lay(networks[size_t(j)], at(v[3], j * size));
      torch::stable::parallel_for(0, m * parts, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t part = i % parts;
          losses[size_t(i)] = kernels->rows(networks[size_t(i / parts)], rows * part / parts, rows * (part + 1) / parts);
        }
      });
      torch::stable::parallel_for(0, m * parts, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) kernels->units(networks[size_t(i / parts)], i % parts, parts);
      });
    }
  } catch (const std::exception& error) {
    failure = error.what();
  }
  PyEval_RestoreThread(state);
  if (!failure.empty()) {
    PyErr_SetString(PyExc_RuntimeError, failure.c_str());
    return nullptr;
  }
  for (int64_t j = 0; j < m; ++j) {
    double sum = 0;
    for (int64_t i = 0; i < parts; ++i) sum += losses[size_t(j * parts + i)];
    *at(v[2], j) = float(sum);
  }
  Py_RETURN_NONE;
}

// adam(plan, first, second, rates, decays, squares, beta_1, beta_2, epsilon): one step on the weights of the plan of perceptron.
// Tensors are addresses. first, second: the moments, laid out like the weights. float64 [m]: rates, the learning rate of each
// network; decays, the factor by which a weight is added to its gradient; squares, an output, the sum of the squares of the
// weights before the step. Biases are not in the last two.
PyObject* adam(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  if (count != 9) {
    PyErr_SetString(PyExc_TypeError, "adam takes 6 integers and 3 floats");
    return nullptr;
  }
  int64_t v[6];
  double shared[3];
  for (int i = 0; i < 6; ++i) v[i] = PyLong_AsLongLong(arguments[i]);
  for (int i = 0; i < 3; ++i) shared[i] = PyFloat_AsDouble(arguments[6 + i]);
  if (PyErr_Occurred()) return nullptr;
  const int64_t* plan = reinterpret_cast<const int64_t*>(v[0]);
  const int64_t m = plan[0], layers = plan[1], *units = plan + 9;
  const double *rates = reinterpret_cast<double*>(v[3]), *decays = reinterpret_cast<double*>(v[4]);
  struct Piece {
    int64_t start, n, network;
    bool bias;
    double squares;
  };
  constexpr int64_t PIECE = 4096;  // small enough that threads have equally much to do
  std::vector<Piece> pieces;
  int64_t start = 0;
  for (int bias = 0; bias < 2; ++bias)
    for (int64_t l = 0; l < layers; ++l)
      for (int64_t j = 0; j < m; ++j) {
        const int64_t end = start + units[l + 1] * (bias ? 1 : units[l]);
        for (; start < end; start += pieces.back().n)
          pieces.push_back({start, std::min(PIECE, end - start), j, bool(bias), 0.0});
      }
  const auto at = [&](int64_t address, int64_t offset) { return reinterpret_cast<float*>(address) + offset; };
  PyThreadState* state = PyEval_SaveThread();
  torch::stable::parallel_for(0, int64_t(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Piece& p = pieces[size_t(i)];
      const thinned::Adam settings = {float(rates[p.network]), p.bias ? 0.0f : float(decays[p.network]),
                                     float(shared[0]), float(1.0 - shared[0]), float(shared[1]), float(1.0 - shared[1]),
                                     float(shared[2])};
      p.squares = kernels->adam(at(plan[4], p.start), at(plan[5], p.start), at(v[1], p.start), at(v[2], p.start), p.n, settings);
    }
  });
  PyEval_RestoreThread(state);
  double* squares = reinterpret_cast<double*>(v[5]);
  std::fill(squares, squares + m, 0.0);
  for (const Piece& p : pieces)
    if (!p.bias) squares[p.network] += p.squares;
  Py_RETURN_NONE;
}

PyMethodDef METHODS[] = {
    {"factor", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(small_factor)), METH_FASTCALL, nullptr},
    {"perceptron", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(perceptron)), METH_FASTCALL, nullptr},
    {"adam", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(adam)), METH_FASTCALL, nullptr},
    {nullptr, nullptr, 0, nullptr}};
PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_native", nullptr, -1, METHODS, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__native() { return PyModule_Create(&MODULE); }

STABLE_TORCH_LIBRARY_IMPL(thinned, CPU, m) {
  m.impl("map", TORCH_BOX(&map));
  m.impl("apply", TORCH_BOX(&map));
  m.impl("map_add", TORCH_BOX(&map_add));
  m.impl("map_into", TORCH_BOX(&map_into));
  m.impl("factor", TORCH_BOX(&factor));
  m.impl("kept", TORCH_BOX(&kept));
  m.impl("blocks", TORCH_BOX(&blocks));
  m.impl("masked", TORCH_BOX(&masked));
  m.impl("subset", TORCH_BOX(&subset));
  m.impl("gather_part", TORCH_BOX(&gather_part));
  m.impl("scatter_part", TORCH_BOX(&scatter_part));
}

STABLE_TORCH_LIBRARY_IMPL(thinned, CompositeExplicitAutograd, m) {
  m.impl("instructions", TORCH_BOX(&instructions));
}
