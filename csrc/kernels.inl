// The bodies of the kernels, compiled once for each instruction set. The including file has set the target, and has defined
// is_dropped_run<G>, on G * STEP consecutive mask elements from the start of a Philox block, and halves_run, on STEP; and
// is_dropped_each and halves_each on one block, and is_dropped_one on one element, of each of EACH examples.

template <typename T>
struct Math {
  using type = float;
};
template <>
struct Math<double> {
  using type = double;
};

struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};

static inline float bits_to_float(uint32_t bits) {
  float out;
  __builtin_memcpy(&out, &bits, 4);
  return out;
}
static inline uint32_t float_to_bits(float value) {
  uint32_t out;
  __builtin_memcpy(&out, &value, 4);
  return out;
}

static inline float load(float v) { return v; }
static inline double load(double v) { return v; }
static inline float load(Bf16 v) { return bits_to_float(uint32_t(v.bits) << 16); }
static inline void store(float& to, float v) { to = v; }
static inline void store(double& to, double v) { to = v; }
static inline void store(Bf16& to, float v) {  // round to nearest, ties to even; NaN stays NaN
  const uint32_t bits = float_to_bits(v);
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  to.bits = uint16_t(v != v ? 0x7FC0u : rounded);
}
#if defined(THINNED_F16C)
static inline float load(F16 v) { return _cvtsh_ss(v.bits); }
static inline void store(F16& to, float v) { to.bits = uint16_t(_cvtss_sh(v, 0)); }
#else
static inline float load(F16 v) {
  const uint32_t sign = uint32_t(v.bits & 0x8000u) << 16, rest = v.bits & 0x7FFFu;
  if (rest >= 0x7C00u) return bits_to_float(sign | 0x7F800000u | (rest & 0x3FFu) << 13);
  // Put the bits 112 exponents too low, then scale: the product itself handles subnormals.
  return bits_to_float(sign | float_to_bits(bits_to_float(rest << 13) * 0x1p112f));
}
static inline void store(F16& to, float v) {
  const uint32_t bits = float_to_bits(v), sign = bits >> 16 & 0x8000u, rest = bits & 0x7FFFFFFFu;
  uint32_t out;
  if (rest > 0x7F800000u) {
    out = 0x7E00u;
  } else if (rest >= 0x477FF000u) {  // rounds beyond the largest half
    out = 0x7C00u;
  } else if (rest < 0x38800000u) {  // subnormal: adding 0.5 rounds the float at the last bit of the half
    out = float_to_bits(bits_to_float(rest) + 0.5f) - 0x3F000000u;
  } else {
    out = (rest - 0x38000000u + 0xFFFu + (rest >> 13 & 1u)) >> 13;
  }
  to.bits = uint16_t(sign | out);
}
#endif

template <typename T, bool ONES, bool ADD, typename A>
static inline void row(const T* __restrict x, int64_t xs, const T* __restrict r, int64_t rs, T* y, int64_t ys, int64_t n,
                       const A& affine) {
  using M = typename Math<T>::type;
  if (xs == 1 && ys == 1 && rs == 1) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
      M v = affine(ONES ? M(1) : M(load(x[i])), i);
      if (ADD) v += M(load(r[i]));
      store(y[i], v);
    }
  } else {
    for (int64_t i = 0; i < n; ++i) {
      M v = affine(ONES ? M(1) : M(load(x[i * xs])), i);
      if (ADD) v += M(load(r[i * rs]));
      store(y[i * ys], v);
    }
  }
}

template <typename T, typename A>
static inline void rows(const void* x, int64_t xs, const void* r, int64_t rs, void* y, int64_t ys, int64_t n, const A& affine) {
  const T* tx = static_cast<const T*>(x);
  const T* tr = static_cast<const T*>(r);
  T* ty = static_cast<T*>(y);
  if (!x) return row<T, true, false>(tx, 1, tr, 1, ty, ys, n, affine);
  if (r) return row<T, false, true>(tx, xs, tr, rs, ty, ys, n, affine);
  row<T, false, false>(tx, xs, tr, 1, ty, ys, n, affine);
}

template <typename T>
static void select_as(const void* x, int64_t xs, const void* r, int64_t rs, void* y, int64_t ys, int64_t n,
                      const uint8_t* is_dropped, const Affine& map) {
  using M = typename Math<T>::type;
  const M gain = M(map.gain), shift = M(map.shift), dropped = M(map.dropped);
  if (shift == 0 && dropped == 0) {
    rows<T>(x, xs, r, rs, y, ys, n, [=](M v, int64_t i) { return v * (is_dropped[i] ? M(0) : gain); });
  } else {
    rows<T>(x, xs, r, rs, y, ys, n,
            [=](M v, int64_t i) { return v * (is_dropped[i] ? M(0) : gain) + (is_dropped[i] ? dropped : shift); });
  }
}

template <typename T>
static void constant_as(const void* x, int64_t xs, const void* r, int64_t rs, void* y, int64_t ys, int64_t n, bool is_dropped,
                        const Affine& map) {
  using M = typename Math<T>::type;
  const M gain = is_dropped ? M(0) : M(map.gain), shift = is_dropped ? M(map.dropped) : M(map.shift);
  if (map.erased) {
    rows<T>(x, xs, r, rs, y, ys, n, [=](M, int64_t) { return shift; });
  } else if (shift == 0) {
    rows<T>(x, xs, r, rs, y, ys, n, [=](M v, int64_t) { return v * gain; });
  } else {
    rows<T>(x, xs, r, rs, y, ys, n, [=](M v, int64_t) { return v * gain + shift; });
  }
}

template <typename T>
static void scale_as(const void* x, int64_t xs, const void* r, int64_t rs, void* y, int64_t ys, int64_t n,
                     const float* noise, double gain, double spread, double shift) {
  using M = typename Math<T>::type;
  const M g = M(gain), s = M(spread), b = M(shift);
  rows<T>(x, xs, r, rs, y, ys, n, [=](M v, int64_t i) { return v * (g + s * M(noise[i])) + b; });
}

static void select(int type, const void* x, int64_t xs, const void* r, int64_t rs, void* y, int64_t ys, int64_t n,
                   const uint8_t* is_dropped, const Affine& map) {
  switch (type) {
    case F32: return select_as<float>(x, xs, r, rs, y, ys, n, is_dropped, map);
    case F64: return select_as<double>(x, xs, r, rs, y, ys, n, is_dropped, map);
    case BF16: return select_as<Bf16>(x, xs, r, rs, y, ys, n, is_dropped, map);
    default: return select_as<F16>(x, xs, r, rs, y, ys, n, is_dropped, map);
  }
}

static void constant(int type, const void* x, int64_t xs, const void* r, int64_t rs, void* y, int64_t ys, int64_t n,
                     bool is_dropped, const Affine& map) {
  switch (type) {
    case F32: return constant_as<float>(x, xs, r, rs, y, ys, n, is_dropped, map);
    case F64: return constant_as<double>(x, xs, r, rs, y, ys, n, is_dropped, map);
    case BF16: return constant_as<Bf16>(x, xs, r, rs, y, ys, n, is_dropped, map);
    default: return constant_as<F16>(x, xs, r, rs, y, ys, n, is_dropped, map);
  }
}

static void scale(int type, const void* x, int64_t xs, const void* r, int64_t rs, void* y, int64_t ys, int64_t n,
                  const float* noise, double gain, double spread, double shift) {
  switch (type) {
    case F32: return scale_as<float>(x, xs, r, rs, y, ys, n, noise, gain, spread, shift);
    case F64: return scale_as<double>(x, xs, r, rs, y, ys, n, noise, gain, spread, shift);
    case BF16: return scale_as<Bf16>(x, xs, r, rs, y, ys, n, noise, gain, spread, shift);
    default: return scale_as<F16>(x, xs, r, rs, y, ys, n, noise, gain, spread, shift);
  }
}

static void scattered(uint32_t* out, int64_t n, const uint64_t* elements, const uint64_t* samples, const uint32_t* steps,
                      const uint32_t* key) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t high = half(elements[i] >> 3, elements[i], samples[i], steps[i], key);
    out[i] = high << 16 | half((elements[i] >> 3) | LOW, elements[i], samples[i], steps[i], key);
  }
}

// log(u), u = (w + 1/2) / 2^32, to 1 ulp or so near 1 as well: 1 - u is exact in float there.
static inline float log_uniform(uint32_t w) {
  const float u = (float(w >> 8) + (float(w & 255u) + 0.5f) * 0x1p-8f) * 0x1p-24f;
  const float v = (float(~w >> 8) + (float(~w & 255u) + 0.5f) * 0x1p-8f) * 0x1p-24f;  // 1 - u
  const uint32_t bits = float_to_bits(u);
  const bool upper = w >= 0x80000000u;
  int32_t exponent = int32_t(bits >> 23) - 127;
  float mantissa = bits_to_float((bits & 0x007FFFFFu) | 0x3F800000u);  // [1, 2)
  const bool high = mantissa > 1.41421356f;
  mantissa = high ? mantissa * 0.5f : mantissa;
  exponent += high ? 1 : 0;
  const float f = upper ? -v : mantissa - 1.0f;
  const float e = upper ? 0.0f : float(exponent);
  const float s = f / (2.0f + f), z = s * s;
  const float series = 1.0f / 3 + z * (1.0f / 5 + z * (1.0f / 7 + z * (1.0f / 9 + z * (1.0f / 11 + z * (1.0f / 13)))));
  return e * 0.693147181f + 2.0f * (s + s * z * series);
}

// cos and sin of 2 pi u, u = (w + 1/2) / 2^32: the quadrant from the top bits, then a series on [-pi/4, pi/4].
static inline void turn(uint32_t w, float& c, float& s) {
  const uint32_t quadrant = (w + 0x20000000u) >> 30;
  const int32_t rest = int32_t(w - (quadrant << 30));  // in [-2^29, 2^29)
  const float t = (float(rest) + 0.5f) * 1.46291807927e-9f;  // 2 pi / 2^32
  const float z = t * t;
  const float sine = t * (1.0f + z * (-1.0f / 6 + z * (1.0f / 120 + z * (-1.0f / 5040 + z * (1.0f / 362880)))));
  const float cosine = 1.0f + z * (-0.5f + z * (1.0f / 24 + z * (-1.0f / 720 + z * (1.0f / 40320 - z * (1.0f / 3628800)))));
  const bool swap = quadrant & 1u;
  const float a = swap ? sine : cosine, b = swap ? cosine : sine;
  c = (quadrant + 1u) & 2u ? -a : a;
  s = quadrant & 2u ? -b : b;
}

static void normal(float* __restrict out, const uint32_t* __restrict words, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n / 2; ++i) {
    float c, s;
    const float radius = __builtin_sqrtf(-2.0f * log_uniform(words[2 * i]));
    turn(words[2 * i + 1], c, s);
    out[2 * i] = radius * c;
    out[2 * i + 1] = radius * s;
  }
}

// The first element may lie inside a Philox block: draw from the start of the block and copy the wanted part.
static void is_dropped(uint8_t* out, int64_t n, uint64_t first, const Lane& lane, uint32_t threshold) {
  const int64_t skip = int64_t(first & 7);
  if (skip) {
    uint8_t head[STEP];
    is_dropped_run<1>(head, first >> 3, lane, threshold);
    const int64_t have = n < STEP - skip ? n : STEP - skip;
    __builtin_memcpy(out, head + skip, uint64_t(have));
    first += uint64_t(have), out += have, n -= have;
    if (first & 7) return;
  }
  int64_t i = 0;
  for (; n - i > (GROUPS - 1) * STEP; i += GROUPS * STEP) {
    is_dropped_run<GROUPS>(out + i, (first + uint64_t(i)) >> 3, lane, threshold);
  }
  for (; i < n; i += STEP) is_dropped_run<1>(out + i, (first + uint64_t(i)) >> 3, lane, threshold);
}

static void words(uint32_t* out, int64_t n, uint64_t first, const Lane& lane) {
  uint16_t high[STEP], low[STEP];
  int64_t skip = int64_t(first & 7);
  for (int64_t i = 0; i < n; skip = 0) {
    const uint64_t block = (first + uint64_t(i)) >> 3;
    halves_run(high, block, lane);
    halves_run(low, block | LOW, lane);
    const int64_t have = n - i < STEP - skip ? n - i : STEP - skip;
    for (int64_t j = 0; j < have; ++j) out[i + j] = uint32_t(high[skip + j]) << 16 | low[skip + j];
    i += have;
  }
}

// Blocks come by block and example, 8 elements each; rows of 8 `blocks` elements are what is left of them.
template <typename T>
static inline void deal(T* rows, const T* drawn, int64_t block, int64_t blocks) {
  for (int64_t e = 0; e < EACH; ++e) __builtin_memcpy(rows + 8 * (e * blocks + block), drawn + 8 * e, 8 * sizeof(T));
}

// Moves n elements of each row together, from `skip` on. Eight are copied at a time: the next row overwrites the excess.
template <typename T>
static inline void compact(T* out, const T* rows, int64_t count, int64_t n, int64_t skip, int64_t stride) {
  for (int64_t e = 0; e < count; ++e)
    for (int64_t i = 0; i < n; i += 8) __builtin_memcpy(out + e * n + i, rows + e * stride + skip + i, 8 * sizeof(T));
}

static void is_dropped_rows(uint8_t* out, int64_t examples, int64_t n, uint64_t first, const Rows& of, uint32_t threshold) {
  const int64_t skip = int64_t(first & 7), blocks = (skip + n + 7) / 8;
  const uint64_t block = first >> 3;
  alignas(64) uint8_t drawn[8 * EACH], rows[EACH * (Kernels::NARROW + 16) + 64];
  for (int64_t e = 0; e < examples; e += EACH) {
    const int64_t count = examples - e < EACH ? examples - e : EACH;
    const Rows these = of.from(e);
    if (n == 1) {
      is_dropped_one(out + e, first, these, threshold);
    } else if (n == 8 && !skip) {
      is_dropped_each(out + 8 * e, block, these, threshold);
    } else if (blocks == 1) {
      is_dropped_each(rows, block, these, threshold);
      compact(out + e * n, rows, count, n, skip, 8);
    } else if (n == 8 * blocks && count == EACH) {
      for (int64_t b = 0; b < blocks; ++b) {
        is_dropped_each(drawn, block + uint64_t(b), these, threshold);
        deal(out + e * n, drawn, b, blocks);
      }
    } else {
      for (int64_t b = 0; b < blocks; ++b) {
        is_dropped_each(drawn, block + uint64_t(b), these, threshold);
        deal(rows, drawn, b, blocks);
      }
      compact(out + e * n, rows, count, n, skip, 8 * blocks);
    }
  }
}

static void words_rows(uint32_t* out, int64_t examples, int64_t n, uint64_t first, const Rows& of) {
  const int64_t skip = int64_t(first & 7), blocks = (skip + n + 7) / 8;
  uint16_t high[8 * EACH], low[8 * EACH];
  uint32_t drawn[8 * EACH], rows[EACH * (Kernels::NARROW + 16) + 8];
  for (int64_t e = 0; e < examples; e += EACH) {
    const int64_t count = examples - e < EACH ? examples - e : EACH;
    for (int64_t b = 0; b < blocks; ++b) {
      const uint64_t block = (first >> 3) + uint64_t(b);
      halves_each(high, block, of.from(e));
      halves_each(low, block | LOW, of.from(e));
      for (int64_t i = 0; i < 8 * EACH; ++i) drawn[i] = uint32_t(high[i]) << 16 | low[i];
      deal(rows, drawn, b, blocks);
    }
    compact(out + e * n, rows, count, n, skip, 8 * blocks);
  }
}

template <typename T>
static void stream_as(const T* x, const T* r, T* y, int64_t n, uint64_t first, const Lane& lane, uint32_t threshold,
                      const Affine& map) {
  constexpr int64_t CHUNK = 256, AHEAD = 2048, LINE = 64;
  alignas(64) uint8_t drawn[CHUNK + 256];
  for (int64_t i = 0; i < n; i += CHUNK) {
    const int64_t m = n - i < CHUNK ? n - i : CHUNK;
    if (n > CHUNK) {
      for (int64_t j = 0; j < CHUNK * int64_t(sizeof(T)); j += LINE) {
        if (x) __builtin_prefetch(reinterpret_cast<const char*>(x + i) + AHEAD + j, 0, 3);
        __builtin_prefetch(reinterpret_cast<const char*>(y + i) + AHEAD + j, 1, 3);
      }
    }
    is_dropped(drawn, m, first + uint64_t(i), lane, threshold);
    select_as<T>(x ? x + i : nullptr, 1, r ? r + i : nullptr, 1, y + i, 1, m, drawn, map);
  }
}

static void stream(int type, const void* x, const void* r, void* y, int64_t n, uint64_t first, const Lane& lane,
                   uint32_t threshold, const Affine& map) {
  const auto go = [&](auto t) {
    using T = decltype(t);
    stream_as<T>(static_cast<const T*>(x), static_cast<const T*>(r), static_cast<T*>(y), n, first, lane, threshold, map);
  };
  switch (type) {
    case F32: return go(float());
    case F64: return go(double());
    case BF16: return go(Bf16());
    default: return go(F16());
  }
}

#include "perceptron.inl"

static constexpr Kernels table(const char* name) {
  return {name, is_dropped, words, is_dropped_rows, words_rows, scattered, normal,
          stream, select, constant, scale, rows, units, adam};
}
