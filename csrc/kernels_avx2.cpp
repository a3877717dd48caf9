// AVX2 with FMA and F16C: four Philox blocks in a register, one 64-bit lane each, four registers in flight.
#include <type_traits>

#include "kernels.h"

#ifdef THINNED_X86
#include <immintrin.h>

#include "philox.h"

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#define THINNED_F16C 1

namespace thinned {
namespace avx2 {

#include "halves.inl"

constexpr int GROUPS = 2;
constexpr int64_t STEP = 32;
constexpr int64_t EACH = 4 * GROUPS;  // examples drawn at a time, where each needs few blocks
constexpr int WIDE = 8;  // floats in a register

// Replaces the counters by their Philox blocks. Only the low half of each 64-bit lane counts: a product of low halves ignores
// the bits above.
template <int G>
__attribute__((always_inline)) static inline void mix(__m256i c0[G], __m256i c1[G], __m256i c2[G], __m256i c3[G],
                                                      const uint32_t* key) {
  const __m256i m0 = _mm256_set1_epi64x(MULTIPLIER_0), m1 = _mm256_set1_epi64x(MULTIPLIER_1);
  uint32_t k0 = key[0], k1 = key[1];
  for (int round = 0; round < ROUNDS; ++round) {
    const __m256i key0 = _mm256_set1_epi64x(k0), key1 = _mm256_set1_epi64x(k1);
    for (int g = 0; g < G; ++g) {
      const __m256i a = _mm256_mul_epu32(m0, c0[g]), b = _mm256_mul_epu32(m1, c2[g]);
      c0[g] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(b, 32), c1[g]), key0);
      c2[g] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(a, 32), c3[g]), key1);
      c1[g] = b;
      c3[g] = a;
    }
    k0 += WEYL_0;
    k1 += WEYL_1;
  }
}

// Halves of 4 G blocks, in order: out[g][0] holds those of blocks 0 and 1 of group g, out[g][1] of blocks 2 and 3. The four
// counters of a register are those of blocks 0, 2, 1 and 3.
template <int G>
__attribute__((always_inline)) static inline void arrange(__m256i out[G][2], const __m256i c0[G], const __m256i c1[G],
                                                          const __m256i c2[G], const __m256i c3[G]) {
  for (int g = 0; g < G; ++g) {
    const __m256i w01 = _mm256_blend_epi32(c0[g], _mm256_slli_epi64(c1[g], 32), 0xAA);
    const __m256i w23 = _mm256_blend_epi32(c2[g], _mm256_slli_epi64(c3[g], 32), 0xAA);
    out[g][0] = _mm256_unpacklo_epi64(w01, w23);
    out[g][1] = _mm256_unpackhi_epi64(w01, w23);
  }
}

// Halves of G * STEP mask elements of an example.
template <int G>
__attribute__((always_inline)) static inline void draw(__m256i out[G][2], uint64_t block, const Lane& lane) {
  __m256i c0[G], c1[G], c2[G], c3[G];
  for (int g = 0; g < G; ++g) {
    const int64_t b = int64_t(uint32_t(block) + uint32_t(4 * g));
    c0[g] = _mm256_add_epi64(_mm256_set1_epi64x(b), _mm256_set_epi64x(3, 1, 2, 0));
    c1[g] = _mm256_set1_epi64x(int64_t(uint32_t(lane.sample)));
    c2[g] = _mm256_set1_epi64x(int64_t(lane.sample >> 32));
    c3[g] = _mm256_set1_epi64x(int64_t(lane.step));
  }
  mix<G>(c0, c1, c2, c3, lane.key);
  arrange<G>(out, c0, c1, c2, c3);
}

// Halves of one block of each of 4 G examples.
template <int G>
__attribute__((always_inline)) static inline void draw_each(__m256i out[G][2], uint64_t block, const Rows& of) {
  __m256i c0[G], c1[G], c2[G], c3[G];
  for (int g = 0; g < G; ++g) {
    c0[g] = _mm256_set1_epi64x(int64_t(uint32_t(block)));
    c1[g] = _mm256_permute4x64_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(of.samples + 4 * g)), 0xD8);
    c2[g] = _mm256_srli_epi64(c1[g], 32);
    const __m128i steps = _mm_loadu_si128(reinterpret_cast<const __m128i*>(of.steps + 4 * g));
    c3[g] = _mm256_permute4x64_epi64(_mm256_cvtepu32_epi64(steps), 0xD8);
  }
  mix<G>(c0, c1, c2, c3, of.key);
  arrange<G>(out, c0, c1, c2, c3);
}

static inline void halves_each(uint16_t* out, uint64_t block, const Rows& of) {
  __m256i drawn[GROUPS][2];
  draw_each<GROUPS>(drawn, block, of);
  for (int i = 0; i < 2 * GROUPS; ++i) _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 16 * i), drawn[i / 2][i % 2]);
}

static inline void is_dropped_each(uint8_t* out, uint64_t block, const Rows& of, uint32_t threshold) {
  __m256i drawn[GROUPS][2];
  draw_each<GROUPS>(drawn, block, of);
  const __m256i flip = _mm256_set1_epi16(INT16_MIN);  // unsigned order as signed order
  const __m256i edge = _mm256_set1_epi16(int16_t(threshold >> 16)), limit = _mm256_xor_si256(edge, flip);
  for (int g = 0; g < GROUPS; ++g) {
    const __m256i a = _mm256_cmpgt_epi16(limit, _mm256_xor_si256(drawn[g][0], flip));
    const __m256i b = _mm256_cmpgt_epi16(limit, _mm256_xor_si256(drawn[g][1], flip));
    const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(a, b), 0xD8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 32 * g), _mm256_and_si256(bytes, _mm256_set1_epi8(1)));
    const __m256i tie = _mm256_packs_epi16(_mm256_cmpeq_epi16(drawn[g][0], edge), _mm256_cmpeq_epi16(drawn[g][1], edge));
    const uint32_t ties = uint32_t(_mm256_movemask_epi8(_mm256_permute4x64_epi64(tie, 0xD8)));
    settle_each(out, ties, 32 * g, 8 * block, 8, of, threshold);
  }
}

// The same for one element of each example.
static inline void is_dropped_one(uint8_t* out, uint64_t element, const Rows& of, uint32_t threshold) {
  __m256i c[4][GROUPS];
  for (int g = 0; g < GROUPS; ++g) {
    c[0][g] = _mm256_set1_epi64x(int64_t(uint32_t(element >> 3)));
    c[1][g] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(of.samples + 4 * g));
    c[2][g] = _mm256_srli_epi64(c[1][g], 32);
    c[3][g] = _mm256_cvtepu32_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(of.steps + 4 * g)));
  }
  mix<GROUPS>(c[0], c[1], c[2], c[3], of.key);
  const __m256i edge = _mm256_set1_epi64x(threshold >> 16), lowest = _mm256_set1_epi64x(0xFFFF);
  const __m128i shift = _mm_cvtsi32_si128(element & 1 ? 16 : 0);
  for (int g = 0; g < GROUPS; ++g) {
    const __m256i word = element & 4 ? (element & 2 ? c[3][g] : c[2][g]) : (element & 2 ? c[1][g] : c[0][g]);
    const __m256i high = _mm256_and_si256(_mm256_srl_epi64(word, shift), lowest);
    const uint32_t less = uint32_t(_mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpgt_epi64(edge, high))));
    const uint32_t bytes = less * 0x00204081u & 0x01010101u;  // bit i becomes byte i
    __builtin_memcpy(out + 4 * g, &bytes, 4);
    const uint32_t ties = uint32_t(_mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(edge, high))));
    settle_each(out, ties, 4 * g, element, 1, of, threshold);
  }
}

static inline void halves_run(uint16_t* out, uint64_t block, const Lane& lane) {
  __m256i drawn[1][2];
  draw<1>(drawn, block, lane);
  for (int i = 0; i < 2; ++i) _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 16 * i), drawn[0][i]);
}

template <int G>
static inline void is_dropped_run(uint8_t* out, uint64_t block, const Lane& lane, uint32_t threshold) {
  __m256i drawn[G][2];
  draw<G>(drawn, block, lane);
  const __m256i flip = _mm256_set1_epi16(INT16_MIN);  // unsigned order as signed order
  const __m256i edge = _mm256_set1_epi16(int16_t(threshold >> 16)), limit = _mm256_xor_si256(edge, flip);
  for (int g = 0; g < G; ++g) {
    const __m256i a = _mm256_cmpgt_epi16(limit, _mm256_xor_si256(drawn[g][0], flip));
    const __m256i b = _mm256_cmpgt_epi16(limit, _mm256_xor_si256(drawn[g][1], flip));
    const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(a, b), 0xD8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 32 * g), _mm256_and_si256(bytes, _mm256_set1_epi8(1)));
    const __m256i tie = _mm256_packs_epi16(_mm256_cmpeq_epi16(drawn[g][0], edge), _mm256_cmpeq_epi16(drawn[g][1], edge));
    settle(out, uint32_t(_mm256_movemask_epi8(_mm256_permute4x64_epi64(tie, 0xD8))), 32 * g, block, lane, threshold);
  }
}

#include "kernels.inl"

}  // namespace avx2

const Kernels AVX2 = avx2::table("avx2");

}  // namespace thinned

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
