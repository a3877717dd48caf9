// AVX-512 (F, BW, VL, DQ): eight Philox blocks in a register, one 64-bit lane each, four registers in flight.
#include <type_traits>

#include "kernels.h"

#ifdef THINNED_X86
#include <immintrin.h>

#include "philox.h"

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,prefer-vector-width=512")
#endif
#define THINNED_F16C 1

namespace thinned {
namespace avx512 {

#include "halves.inl"

constexpr int GROUPS = 4;
constexpr int64_t STEP = 64;
constexpr int64_t EACH = 8 * GROUPS;  // examples drawn at a time, where each needs few blocks
constexpr int WIDE = 16;  // floats in a register

// Replaces the counters by their Philox blocks. Only the low half of each 64-bit lane counts: a product of low halves ignores
// the bits above.
template <int G>
__attribute__((always_inline)) static inline void mix(__m512i c0[G], __m512i c1[G], __m512i c2[G], __m512i c3[G],
                                                      const uint32_t* key) {
  const __m512i m0 = _mm512_set1_epi64(MULTIPLIER_0), m1 = _mm512_set1_epi64(MULTIPLIER_1);
  uint32_t k0 = key[0], k1 = key[1];
#pragma GCC unroll 10
  for (int round = 0; round < ROUNDS; ++round) {
    const __m512i key0 = _mm512_set1_epi32(int32_t(k0)), key1 = _mm512_set1_epi32(int32_t(k1));
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
      const __m512i a = _mm512_mul_epu32(m0, c0[g]), b = _mm512_mul_epu32(m1, c2[g]);
      // 0x96: the exclusive or of three. One shift uses the port for shuffles, the other the port for shifts.
      c0[g] = _mm512_ternarylogic_epi32(_mm512_shuffle_epi32(b, _MM_PERM_DDBB), c1[g], key0, 0x96);
      c2[g] = _mm512_ternarylogic_epi32(_mm512_srli_epi64(a, 32), c3[g], key1, 0x96);
      c1[g] = b;
      c3[g] = a;
    }
    k0 += WEYL_0;
    k1 += WEYL_1;
  }
}

// Where to find the counters of a register, so that `arrange` leaves their blocks in order.
static inline __m512i order() { return _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0); }

// Halves of 8 G blocks, in order: out[g][0] holds those of blocks 0 to 3 of group g, out[g][1] of blocks 4 to 7.
template <int G>
__attribute__((always_inline)) static inline void arrange(__m512i out[G][2], const __m512i c0[G], const __m512i c1[G],
                                                          const __m512i c2[G], const __m512i c3[G]) {
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g) {
    const __m512i w01 = _mm512_mask_shuffle_epi32(c0[g], 0xAAAA, c1[g], _MM_PERM_CCAA);
    const __m512i w23 = _mm512_mask_shuffle_epi32(c2[g], 0xAAAA, c3[g], _MM_PERM_CCAA);
    out[g][0] = _mm512_unpacklo_epi64(w01, w23);
    out[g][1] = _mm512_unpackhi_epi64(w01, w23);
  }
}

// Halves of G * STEP mask elements of an example.
template <int G>
__attribute__((always_inline)) static inline void draw(__m512i out[G][2], uint64_t block, const Lane& lane) {
  __m512i c0[G], c1[G], c2[G], c3[G];
  for (int g = 0; g < G; ++g) {
    c0[g] = _mm512_add_epi64(_mm512_set1_epi64(int64_t(uint32_t(block) + uint32_t(8 * g))), order());
    c1[g] = _mm512_set1_epi64(int64_t(uint32_t(lane.sample)));
    c2[g] = _mm512_set1_epi64(int64_t(lane.sample >> 32));
    c3[g] = _mm512_set1_epi64(int64_t(lane.step));
  }
  mix<G>(c0, c1, c2, c3, lane.key);
  arrange<G>(out, c0, c1, c2, c3);
}

// Halves of one block of each of 8 G examples.
template <int G>
__attribute__((always_inline)) static inline void draw_each(__m512i out[G][2], uint64_t block, const Rows& of) {
  __m512i c0[G], c1[G], c2[G], c3[G];
  for (int g = 0; g < G; ++g) {
    c0[g] = _mm512_set1_epi64(int64_t(uint32_t(block)));
    c1[g] = _mm512_permutexvar_epi64(order(), _mm512_loadu_si512(of.samples + 8 * g));
    c2[g] = _mm512_srli_epi64(c1[g], 32);
    const __m256i steps = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(of.steps + 8 * g));
    c3[g] = _mm512_permutexvar_epi64(order(), _mm512_cvtepu32_epi64(steps));
  }
  mix<G>(c0, c1, c2, c3, of.key);
  arrange<G>(out, c0, c1, c2, c3);
}

static inline void halves_each(uint16_t* out, uint64_t block, const Rows& of) {
  __m512i drawn[GROUPS][2];
  draw_each<GROUPS>(drawn, block, of);
  for (int i = 0; i < 2 * GROUPS; ++i) _mm512_storeu_si512(out + 32 * i, drawn[i / 2][i % 2]);
}

static inline void is_dropped_each(uint8_t* out, uint64_t block, const Rows& of, uint32_t threshold) {
  __m512i drawn[GROUPS][2];
  draw_each<GROUPS>(drawn, block, of);
  const __m512i edge = _mm512_set1_epi16(int16_t(threshold >> 16));
  uint64_t ties[GROUPS], any = 0;
#pragma GCC unroll 4
  for (int g = 0; g < GROUPS; ++g) {
    const uint64_t low = _mm512_cmplt_epu16_mask(drawn[g][0], edge), high = _mm512_cmplt_epu16_mask(drawn[g][1], edge);
    _mm512_storeu_si512(out + 64 * g, _mm512_maskz_set1_epi8(low | high << 32, 1));
    ties[g] = uint64_t(_mm512_cmpeq_epu16_mask(drawn[g][0], edge)) | uint64_t(_mm512_cmpeq_epu16_mask(drawn[g][1], edge)) << 32;
    any |= ties[g];
  }
  if (!any) return;
  for (int g = 0; g < GROUPS; ++g) settle_each(out, ties[g], 64 * g, 8 * block, 8, of, threshold);
}

// The same for one element of each example.
static inline void is_dropped_one(uint8_t* out, uint64_t element, const Rows& of, uint32_t threshold) {
  __m512i c[4][GROUPS];
  for (int g = 0; g < GROUPS; ++g) {
    c[0][g] = _mm512_set1_epi64(int64_t(uint32_t(element >> 3)));
    c[1][g] = _mm512_loadu_si512(of.samples + 8 * g);
    c[2][g] = _mm512_srli_epi64(c[1][g], 32);
    c[3][g] = _mm512_cvtepu32_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(of.steps + 8 * g)));
  }
  mix<GROUPS>(c[0], c[1], c[2], c[3], of.key);
  const __m512i edge = _mm512_set1_epi64(threshold >> 16), lowest = _mm512_set1_epi64(0xFFFF);
  const __m128i shift = _mm_cvtsi32_si128(element & 1 ? 16 : 0);
  uint64_t less = 0, ties = 0;
#pragma GCC unroll 4
  for (int g = 0; g < GROUPS; ++g) {
    const __m512i word = element & 4 ? (element & 2 ? c[3][g] : c[2][g]) : (element & 2 ? c[1][g] : c[0][g]);
    const __m512i high = _mm512_and_si512(_mm512_srl_epi64(word, shift), lowest);
    less |= uint64_t(_mm512_cmplt_epu64_mask(high, edge)) << 8 * g;
    ties |= uint64_t(_mm512_cmpeq_epu64_mask(high, edge)) << 8 * g;
  }
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_maskz_set1_epi8(__mmask32(less), 1));
  if (ties) settle_each(out, ties, 0, element, 1, of, threshold);
}

static inline void halves_run(uint16_t* out, uint64_t block, const Lane& lane) {
  __m512i drawn[1][2];
  draw<1>(drawn, block, lane);
  for (int i = 0; i < 2; ++i) _mm512_storeu_si512(out + 32 * i, drawn[0][i]);
}

template <int G>
static inline void is_dropped_run(uint8_t* out, uint64_t block, const Lane& lane, uint32_t threshold) {
  __m512i drawn[G][2];
  draw<G>(drawn, block, lane);
  const __m512i edge = _mm512_set1_epi16(int16_t(threshold >> 16));
  uint64_t ties[G], any = 0;
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g) {
    const uint64_t low = _mm512_cmplt_epu16_mask(drawn[g][0], edge), high = _mm512_cmplt_epu16_mask(drawn[g][1], edge);
    _mm512_storeu_si512(out + 64 * g, _mm512_maskz_set1_epi8(low | high << 32, 1));
    ties[g] = uint64_t(_mm512_cmpeq_epu16_mask(drawn[g][0], edge)) | uint64_t(_mm512_cmpeq_epu16_mask(drawn[g][1], edge)) << 32;
    any |= ties[g];
  }
  if (!any) return;
  for (int g = 0; g < G; ++g) settle(out, ties[g], 64 * g, block, lane, threshold);
}

#include "kernels.inl"

}  // namespace avx512

const Kernels AVX512 = avx512::table("avx512");

}  // namespace thinned

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
