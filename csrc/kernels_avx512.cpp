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
constexpr int WIDE = 16;  // floats in a register

// Halves of G * STEP mask elements, in order: out[g][0] holds those of blocks 0 to 3 of group g, out[g][1] of blocks 4 to 7.
template <int G>
static inline void draw(__m512i out[G][2], uint64_t block, const Lane& lane) {
  const __m512i m0 = _mm512_set1_epi64(MULTIPLIER_0), m1 = _mm512_set1_epi64(MULTIPLIER_1);
  // Only the low half of each 64-bit lane counts: a product of low halves ignores the bits above.
  __m512i c0[G], c1[G], c2[G], c3[G];
  for (int g = 0; g < G; ++g) {
    const int64_t b = int64_t(uint32_t(block) + uint32_t(8 * g));
    c0[g] = _mm512_add_epi64(_mm512_set1_epi64(b), _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0));
    c1[g] = _mm512_set1_epi64(int64_t(uint32_t(lane.sample)));
    c2[g] = _mm512_set1_epi64(int64_t(lane.sample >> 32));
    c3[g] = _mm512_set1_epi64(int64_t(lane.step));
  }
  uint32_t k0 = lane.key[0], k1 = lane.key[1];
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
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g) {
    const __m512i w01 = _mm512_mask_shuffle_epi32(c0[g], 0xAAAA, c1[g], _MM_PERM_CCAA);
    const __m512i w23 = _mm512_mask_shuffle_epi32(c2[g], 0xAAAA, c3[g], _MM_PERM_CCAA);
    out[g][0] = _mm512_unpacklo_epi64(w01, w23);
    out[g][1] = _mm512_unpackhi_epi64(w01, w23);
  }
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
