// Loss and gradients of perceptrons with units that are multiplied by given maps (the dropout). Rows are independent up to the
// gradients of the weights, and those of different units always are, so a step is two parallel passes: over rows, then over units.

// exp(input) for input up to 88, to 2 units in the last place (the series of Cephes); 0 below -87.
static inline float exponential(float input) {
  const float x = input < -87.0f ? -87.0f : input;
  const float shifted = x * 1.44269504f + 12582912.0f, n = shifted - 12582912.0f;  // rounded to a whole number
  const float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float y = (p * r * r + r + 1.0f) * bits_to_float((float_to_bits(shifted) + 127u) << 23);
  return input < -87.0f ? 0.0f : y;
}

static inline float sigmoid(float x) {
  const float e = exponential(x < 0 ? x : -x);  // of a number below 0, so it cannot overflow
  return (x < 0 ? e : 1.0f) / (1.0f + e);
}

static inline float tangent(float x) {
  const float e = exponential(x < 0 ? 2 * x : -2 * x), t = (1.0f - e) / (1.0f + e);
  return x < 0 ? -t : t;
}

template <typename F>
static inline void each(float* __restrict out, const float* __restrict a, int64_t n, F f) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) out[i] = f(out[i], a[i]);
}

// All of these propagate NaN, so that weights that are not finite show in the loss.
static void activate(float* z, const float* bias, int64_t n, int activation) {
  switch (activation) {
    case RELU: return each(z, bias, n, [](float v, float b) { return v + b < 0 ? 0 : v + b; });
    case LOGISTIC: return each(z, bias, n, [](float v, float b) { return sigmoid(v + b); });
    case TANH: return each(z, bias, n, [](float v, float b) { return tangent(v + b); });
    default: return each(z, bias, n, [](float v, float b) { return v + b; });
  }
}

static void slope(float* delta, const float* active, int64_t n, int activation) {
  switch (activation) {
    case RELU: return each(delta, active, n, [](float d, float h) { return h <= 0 ? 0 : d; });
    case LOGISTIC: return each(delta, active, n, [](float d, float h) { return d * h * (1.0f - h); });
    case TANH: return each(delta, active, n, [](float d, float h) { return d * (1.0f - h * h); });
    default: return;
  }
}

static inline float larger(float a, float b) { return a > b ? a : b; }

// Returns the loss of a row from its sums z and replaces them by its gradient; both are multiplied by the share of the row.
static double settle_row(float* z, const float* y, int64_t n, float share, int head) {
  double loss = 0;
  if (head == SOFTMAX) {
    float top = z[0], total = 0;
    for (int64_t j = 1; j < n; ++j) top = larger(z[j], top);
    for (int64_t j = 0; j < n; ++j) loss += double(y[j]) * (top - z[j]);
    for (int64_t j = 0; j < n; ++j) z[j] = exponential(z[j] - top);
    for (int64_t j = 0; j < n; ++j) total += z[j];
    const double rest = __builtin_log(double(total));
    for (int64_t j = 0; j < n; ++j) {
      loss += double(y[j]) * rest;
      z[j] = (z[j] / total - y[j]) * share;
    }
    return loss * share;
  }
  for (int64_t j = 0; j < n; ++j) {
    const float v = z[j];
    if (head == LOGISTIC) {
      loss += double(larger(v, 0)) + __builtin_log1p(double(exponential(v < 0 ? v : -v))) - double(y[j]) * v;
      z[j] = (sigmoid(v) - y[j]) * share;
    } else {
      loss += 0.5 / double(n) * double(v - y[j]) * double(v - y[j]);
      z[j] = (v - y[j]) * share;
    }
  }
  return loss * share;
}

// As many floats as a register holds, at any alignment.
typedef float Wide __attribute__((vector_size(WIDE * 4)));
static inline Wide wide(const float* from) {
  Wide out;
  __builtin_memcpy(&out, from, sizeof out);
  return out;
}
static inline void put(float* to, const Wide& v) { __builtin_memcpy(to, &v, sizeof v); }

// The entries of a row of the batch that are not 0.
struct Entries {
  const int32_t* columns;
  const float *values, *map;
  int64_t n;
  Entries(const Perceptron& p, int64_t row)
      : columns(p.columns + p.starts[p.row_ids[row]]),
        values(p.values + p.starts[p.row_ids[row]]),
        map(p.map[0] ? p.map[0] + row * p.units[0] : nullptr),
        n(p.starts[p.row_ids[row] + 1] - p.starts[p.row_ids[row]]) {}
  float value(int64_t k) const { return map ? values[k] * map[columns[k]] : values[k]; }
};

// Columns [from, to) in blocks that are so narrow that a block of weights remains in the cache. Calls f(number of registers, first
// column).
constexpr int BLOCK = 64;
template <typename F>
static inline void blocks(int64_t from, int64_t to, F f) {
  for (; from + BLOCK <= to; from += BLOCK) f(std::integral_constant<int, BLOCK / WIDE>(), from);
  for (; from + WIDE <= to; from += WIDE) f(std::integral_constant<int, 1>(), from);
  for (; from < to; ++from) f(std::integral_constant<int, 0>(), from);
}

template <int N>
static inline void gather_row(const float* __restrict weight, int64_t step, const Entries& e, float* __restrict to) {
  if constexpr (N == 0) {
    float sum = 0;
    for (int64_t k = 0; k < e.n; ++k) sum += e.value(k) * weight[e.columns[k] * step];
    *to = sum;
  } else {
    Wide sums[N] = {};
    for (int64_t k = 0; k < e.n; ++k) {
      const float v = e.value(k);
      const float* from = weight + e.columns[k] * step;
#pragma GCC unroll 16
      for (int i = 0; i < N; ++i) sums[i] += v * wide(from + WIDE * i);
    }
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) put(to + WIDE * i, sums[i]);
  }
}

template <int N>
static inline void scatter_row(float* __restrict slopes, int64_t step, const Entries& e, const float* __restrict delta) {
  if constexpr (N == 0) {
    for (int64_t k = 0; k < e.n; ++k) slopes[e.columns[k] * step] += e.value(k) * *delta;
  } else {
    Wide d[N];
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) d[i] = wide(delta + WIDE * i);
    for (int64_t k = 0; k < e.n; ++k) {
      const float v = e.value(k);
      float* to = slopes + e.columns[k] * step;
#pragma GCC unroll 16
      for (int i = 0; i < N; ++i) put(to + WIDE * i, wide(to + WIDE * i) + v * d[i]);
    }
  }
}

// The first sums of rows [first, last) of a sparse input.
static void gather(const Perceptron& p, float* z, int64_t first, int64_t last) {
  const int64_t out = p.units[1];
  blocks(0, out, [&](auto count, int64_t from) {
    for (int64_t row = first; row < last; ++row)
      gather_row<decltype(count)::value>(p.weight[0] + from, out, Entries(p, row), z + (row - first) * out + from);
  });
}

// The gradient of the first weights of a sparse input, of some units.
static void scatter(const Perceptron& p, int64_t unit, int64_t n) {
  const int64_t out = p.units[1];
  float* slopes = p.weight_slope[0];
  for (int64_t i = 0; i < p.units[0]; ++i) __builtin_memset(slopes + i * out + unit, 0, uint64_t(n) * 4);
  blocks(unit, unit + n, [&](auto count, int64_t from) {
    for (int64_t row = 0; row < p.rows; ++row)
      scatter_row<decltype(count)::value>(slopes + from, out, Entries(p, row), p.delta[1] + row * out + from);
  });
}

// Forward and backward of rows [first, last): the loss, and in p.delta its gradient by the sums of every layer.
static double rows(const Perceptron& p, int64_t first, int64_t last) {
  const int64_t n = last - first;
  const float* map = p.map[0];
  if (map && !p.row_ids) {
    const int64_t from = first * p.units[0];
#pragma GCC ivdep
    for (int64_t i = 0; i < n * p.units[0]; ++i) p.masked[0][from + i] = p.x[from + i] * map[from + i];
  }
  double loss = 0;
  for (int64_t l = 0; l < p.layers; ++l) {
    const int64_t in = p.units[l], out = p.units[l + 1];
    float* z = (l + 1 < p.layers ? p.active[l + 1] : p.delta[l + 1]) + first * out;
    if (!l && p.row_ids) {
      gather(p, z, first, last);
    } else {
      p.product({z, n, out, out, 1}, {p.input(l) + first * in, n, in, in, 1}, {p.weight[l], in, out, 1, in});
    }
    const bool end = l + 1 == p.layers;
    for (int64_t row = 0; row < n; ++row) activate(z + row * out, p.bias[l], out, end ? IDENTITY : p.activation);
    if (end) {
      for (int64_t row = 0; row < n; ++row)
        loss += settle_row(z + row * out, p.y + (first + row) * out, out, p.share[first + row], p.head);
    } else if (const float* map = p.map[l + 1]) {
      float* __restrict to = p.masked[l + 1] + first * out;
#pragma GCC ivdep
      for (int64_t i = 0; i < n * out; ++i) to[i] = z[i] * map[first * out + i];
    }
  }
  for (int64_t l = p.layers - 1; l > 0; --l) {
    const int64_t in = p.units[l], out = p.units[l + 1], from = first * in;
    float* delta = p.delta[l] + from;
    p.product({delta, n, in, in, 1}, {p.delta[l + 1] + first * out, n, out, out, 1}, {p.weight[l], out, in, in, 1});
    if (p.map[l]) each(delta, p.map[l] + from, n * in, [](float d, float a) { return d * a; });
    slope(delta, p.active[l] + from, n * in, p.activation);
  }
  return loss;
}

// The gradients of the weights and biases of one part of the units of each layer.
static void units(const Perceptron& p, int64_t part, int64_t parts) {
  for (int64_t l = 0; l < p.layers; ++l) {
    const int64_t in = p.units[l], out = p.units[l + 1], first = out * part / parts, n = out * (part + 1) / parts - first;
    if (!n) continue;
    if (!l && p.row_ids) {
      scatter(p, first, n);
    } else {
      const Matrix slopes = {p.weight_slope[l] + first * in, n, in, in, 1};
      p.product(slopes, {p.delta[l + 1] + first, n, p.rows, 1, out}, {p.input(l), p.rows, in, in, 1});
    }
    float* __restrict sums = p.bias_slope[l] + first;
    for (int64_t i = 0; i < n; ++i) sums[i] = 0;
    for (int64_t row = 0; row < p.rows; ++row) {
      const float* __restrict delta = p.delta[l + 1] + row * out + first;
      for (int64_t i = 0; i < n; ++i) sums[i] += delta[i];
    }
  }
}

// Kingma and Ba 2015, in the form at the end of their section 2.
static double adam(float* __restrict w, const float* __restrict gradient, float* __restrict first, float* __restrict second,
                   int64_t n, const Adam& a) {
  constexpr int64_t LANES = 16, CHUNK = 4096;
  double total = 0;
  for (int64_t start = 0; start < n; start += CHUNK) {
    const int64_t end = n - start < CHUNK ? n : start + CHUNK;
    float squares[LANES] = {};
    int64_t i = start;
    const auto step = [&](int64_t k) {
      const float was = w[k], g = gradient[k] + a.decay * was;
      first[k] = a.beta_1 * first[k] + a.rest_1 * g;
      second[k] = a.beta_2 * second[k] + a.rest_2 * g * g;
      w[k] = was - a.rate * first[k] / (__builtin_sqrtf(second[k]) + a.epsilon);
      return was * was;
    };
    for (; i + LANES <= end; i += LANES) {
#pragma GCC ivdep
      for (int64_t j = 0; j < LANES; ++j) squares[j] += step(i + j);
    }
    for (; i < end; ++i) squares[0] += step(i);
    for (float square : squares) total += double(square);
  }
  return total;
}
