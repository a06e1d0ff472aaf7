/* Evaluates a polyline of few kinks in one pass over memory. Compiled on the machine that runs it, called by ctypes.

   Inner loops run over BLOCK numbers whose sums stay in registers, so that the compiler vectorises them. A kink costs a
   maximum and a multiply-add in the value, a comparison and a blend in the slope. Comparisons are written so that NaN
   stays NaN.
   pieces: K, at most MOST, which is MAX_PIECES of native.py. kinks [K - 1] ascending, slopes and intercepts [K].
   ALONE: up to so many numbers one thread does all, since starting the others costs more. */

#include <stddef.h>
#include <string.h>

enum { BLOCK = 64, MOST = 256, ALONE = 32768 };

/* Computes c + s min(x, t_last) + sum_k d_k max(min(x, t_last), t_k), plus the last line beyond t_last: exact in both
   tails. */
static inline void values(const float *restrict x, float *restrict y, const float *restrict kinks,
                          const float *restrict changes, ptrdiff_t inner, float slope, float intercept, float last) {
    float total[BLOCK], clamped[BLOCK];
    const float end = kinks[inner - 1];
    for (int i = 0; i < BLOCK; ++i) {
        clamped[i] = end < x[i] ? end : x[i];
        total[i] = slope * clamped[i] + intercept;
    }
    for (ptrdiff_t k = 0; k < inner; ++k) {
        const float kink = kinks[k], change = changes[k];
        for (int i = 0; i < BLOCK; ++i) total[i] += change * (kink > clamped[i] ? kink : clamped[i]);
    }
    for (int i = 0; i < BLOCK; ++i) y[i] = total[i] + last * (x[i] - clamped[i]);
}

static inline void gradients(const float *restrict x, const float *restrict upstream, float *restrict y,
                             const float *restrict kinks, const float *restrict slopes, ptrdiff_t inner) {
    float slope[BLOCK];
    for (int i = 0; i < BLOCK; ++i) slope[i] = slopes[0];
    for (ptrdiff_t k = 0; k < inner; ++k) {
        const float kink = kinks[k], next = slopes[k + 1];
        for (int i = 0; i < BLOCK; ++i) slope[i] = x[i] > kink ? next : slope[i];
    }
    for (int i = 0; i < BLOCK; ++i) y[i] = upstream[i] * slope[i];
}

/* Writes y [count] = polyline(x [count]). pieces is at least 2. */
void polyline_value(const float *x, float *y, ptrdiff_t count, const float *kinks, const float *slopes,
                    const float *intercepts, ptrdiff_t pieces, int threads) {
    const ptrdiff_t inner = pieces - 1, blocks = count / BLOCK, rest = count % BLOCK;
    const float slope = slopes[0], last = slopes[inner];
    float changes[MOST];
    double intercept = intercepts[0];
    for (ptrdiff_t k = 0; k < inner; ++k) {
        changes[k] = slopes[k + 1] - slopes[k];
        intercept -= (double)changes[k] * kinks[k];
    }
#pragma omp parallel for num_threads(threads) schedule(static) if (count > ALONE)
    for (ptrdiff_t b = 0; b < blocks; ++b)
        values(x + b * BLOCK, y + b * BLOCK, kinks, changes, inner, slope, (float)intercept, last);
    if (rest) {
        float padded[BLOCK] = {0}, result[BLOCK];
        memcpy(padded, x + blocks * BLOCK, rest * sizeof(float));
        values(padded, result, kinks, changes, inner, slope, (float)intercept, last);
        memcpy(y + blocks * BLOCK, result, rest * sizeof(float));
    }
}

/* Writes y [count] = upstream [count] times the slope at x [count]; at a kink that of the line to its left. */
void polyline_gradient(const float *x, const float *upstream, float *y, ptrdiff_t count, const float *kinks,
                       const float *slopes, ptrdiff_t pieces, int threads) {
    const ptrdiff_t blocks = count / BLOCK, rest = count % BLOCK;
#pragma omp parallel for num_threads(threads) schedule(static) if (count > ALONE)
    for (ptrdiff_t b = 0; b < blocks; ++b)
        gradients(x + b * BLOCK, upstream + b * BLOCK, y + b * BLOCK, kinks, slopes, pieces - 1);
    if (rest) {
        float padded[2][BLOCK] = {{0}}, result[BLOCK];
        memcpy(padded[0], x + blocks * BLOCK, rest * sizeof(float));
        memcpy(padded[1], upstream + blocks * BLOCK, rest * sizeof(float));
        gradients(padded[0], padded[1], result, kinks, slopes, pieces - 1);
        memcpy(y + blocks * BLOCK, result, rest * sizeof(float));
    }
}
